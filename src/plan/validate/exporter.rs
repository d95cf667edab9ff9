//! The sidecar: image, port, volumes, resources and the scrape.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Findings;
use crate::api::Duration;
use crate::api::RoseyMonitorSpec;
use crate::api::quantities::quantity;
use crate::api::schema::below;
use crate::plan::{Platform, exporter_config};

/// The longest interval of scrapes and evaluations, in seconds.
const LONGEST_INTERVAL: u64 = 120;

/// The least memory, in bytes, that the sidecar starts and works with.
const LEAST_MEMORY: f64 = 8_388_608.0;

/// Whether a limit of this much memory lets the sidecar start.
pub fn is_enough_memory(text: &str) -> bool {
    quantity(text).is_some_and(|bytes| bytes >= LEAST_MEMORY)
}

/// What the container of the sidecar is made from.
pub fn check_container(found: &mut Findings, spec: &RoseyMonitorSpec, platform: &Platform) {
    let exporter = &spec.exporter;
    if let Some(image) = exporter.image.as_deref().filter(|image| !platform.allows_image(image)) {
        let allowed = platform.exporter_image_prefixes.join(", ");
        found.problem(
            "spec.exporter.image",
            format!("{image:?} must start with one of: {allowed} (the operator's --exporter-image-prefixes)"),
        );
    }

    let bot_ports = [
        ("spec.bot.health.port", spec.bot.health.as_ref().map(|h| h.port)),
        ("spec.bot.metrics.port", spec.bot.metrics.as_ref().map(|m| m.port)),
    ];
    for (field, _) in bot_ports.iter().filter(|(_, port)| *port == Some(exporter.port)) {
        found.problem(
            "spec.exporter.port",
            format!("{} is {field} too, in the same pod; choose another", exporter.port),
        );
    }
    if let Some(resources) = &exporter.resources {
        check_resources(found, resources);
    }
}

pub fn check(found: &mut Findings, spec: &RoseyMonitorSpec, platform: &Platform) {
    let exporter = &spec.exporter;
    check_container(found, spec, platform);

    let mut seen = BTreeSet::new();
    for (n, disk) in exporter.disk.iter().enumerate() {
        let field = format!("spec.exporter.disk[{n}]");
        relative(found, &format!("{field}.path"), &disk.path);
        if !seen.insert((&disk.volume, disk.path.trim_matches('/'))) {
            found.problem(
                field,
                format!("volume {:?} with this path stands in the list already", disk.volume),
            );
        }
    }
    if let Some(backups) = &exporter.backups {
        relative(found, "spec.exporter.backups.path", &backups.path);
    }

    if let Err((field, reason)) = exporter_config::config(spec).check() {
        found.problem(field_of_spec(&field), reason);
    }

    let interval = found.positive("spec.scrape.interval", &spec.scrape.interval);
    let timeout = found.positive("spec.scrape.timeout", &spec.scrape.timeout);
    if let (Some(interval), Some(timeout)) = (interval, timeout)
        && timeout > interval
    {
        let message = format!(
            "{} is longer than spec.scrape.interval, {}",
            spec.scrape.timeout, spec.scrape.interval
        );
        found.problem("spec.scrape.timeout", message);
    }
    warn_of_short_scrape(found, spec, timeout);
    // Prometheus forgets a series five minutes after its last sample; then `absent()` speaks of a bot that is there, and an
    // alert that keeps itself firing has nothing to keep.
    let intervals = [
        ("spec.scrape.interval", Some(&spec.scrape.interval)),
        ("spec.alerts.interval", spec.alerts.interval.as_ref()),
    ];
    for (field, interval) in intervals {
        if interval
            .and_then(Duration::seconds)
            .is_some_and(|seconds| seconds > LONGEST_INTERVAL)
        {
            found.problem(
                field,
                "is longer than 2m; Prometheus forgets a series after five minutes, and alerts would flap",
            );
        }
    }
}

/// The exporter answers before Prometheus gives up, so the bot may have less time than its own timeout says. The default is
/// nobody's wish, and the shortest scrapes leave no whole second: this is odd, not wrong.
fn warn_of_short_scrape(found: &mut Findings, spec: &RoseyMonitorSpec, scrape: Option<u64>) {
    let default = Some(2);
    let health = spec.bot.health.as_ref().and_then(|health| health.timeout.seconds());
    if let (Some(health), Some(scrape)) = (health, scrape)
        && health >= scrape
        && Some(health) != default
    {
        found.warn(format!(
            "spec.bot.health.timeout: {health}s is cut short half a second before spec.scrape.timeout, {scrape}s; \
             write a scrape timeout of at least {}s",
            health + 1
        ));
    }
}

/// Where the user wrote what stands at this path of the exporter's configuration.
fn field_of_spec(field: &str) -> String {
    let field = field.replace("timeoutSeconds", "timeout").replace(".label", ".path");
    match field.split_once('.') {
        Some(("health" | "metrics", _)) => format!("spec.bot.{field}"),
        _ => format!("spec.exporter.{field}"),
    }
}

fn relative(found: &mut Findings, field: &str, path: &str) {
    if path.starts_with('/') || path.split('/').any(|part| part == "..") {
        found.problem(
            field,
            format!("{path:?} must be relative to the volume and without \"..\""),
        );
    }
}

/// A container with resources that Kubernetes refuses would keep the bot's pods from being created.
fn check_resources(found: &mut Findings, resources: &ResourceRequirements) {
    let field = "spec.exporter.resources";
    if resources.claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        found.problem(format!("{field}.claims"), "are not for the sidecar; remove them");
    }
    let limits = resources
        .limits
        .iter()
        .flatten()
        .map(|(name, quantity)| ("limits", name, quantity));
    let requests = resources
        .requests
        .iter()
        .flatten()
        .map(|(name, quantity)| ("requests", name, quantity));
    for (list, name, Quantity(text)) in limits.chain(requests) {
        let field = below(&format!("{field}.{list}"), name);
        if !matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage") {
            found.problem(
                field,
                "is not a resource of the sidecar; write cpu, memory or ephemeral-storage",
            );
        } else if text.strip_prefix('-').and_then(quantity).is_some() {
            found.problem(
                field,
                format!("{text:?} is less than nothing; write it without the sign"),
            );
        } else if quantity(text).is_none() {
            found.problem(
                field,
                format!("{text:?} is not a quantity; write one such as 5m or 32Mi"),
            );
        } else if (list, name.as_str()) == ("limits", "memory") && !is_enough_memory(text) {
            found.problem(
                field,
                format!("{text:?} is less than the sidecar starts with; write 8Mi or more"),
            );
        }
    }
    for (name, Quantity(request)) in resources.requests.iter().flatten() {
        let limit = resources.limits.as_ref().and_then(|limits| limits.get(name));
        if let (Some(request_value), Some(Quantity(limit))) = (quantity(request), limit)
            && quantity(limit).is_some_and(|limit| request_value > limit)
        {
            found.problem(
                below(&format!("{field}.requests"), name),
                format!("{request:?} is more than the limit, {limit:?}"),
            );
        }
    }
}
