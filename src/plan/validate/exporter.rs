//! The sidecar: image, port, volumes and resources.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Findings;
use crate::api::RoseyMonitorSpec;
use crate::api::exporter::Pushgateway;
use crate::api::quantities::quantity;
use crate::api::schema::below;
use crate::plan::{Platform, exporter_config};

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
        ("spec.bot.plugins.port", spec.bot.plugins.as_ref().map(|p| p.port)),
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

pub fn check(found: &mut Findings, name: &str, namespace: &str, spec: &RoseyMonitorSpec, platform: &Platform) {
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
    if let Some(logs) = &spec.bot.logs {
        relative(found, "spec.bot.logs.path", &logs.path);
    }
    if let Some(gateway) = &exporter.pushgateway {
        check_pushgateway(found, gateway);
    }
    if let Some(web) = &exporter.web_config_secret_ref
        && matches!(web.key.as_str(), "." | "..")
    {
        found.problem(
            "spec.exporter.webConfigSecretRef.key",
            format!("{:?} is no key of a Secret; write one such as web.yml", web.key),
        );
    }

    if let Err((field, reason)) = exporter_config::config(name, namespace, spec).check() {
        found.problem(field_of_spec(&field), reason);
    }
}

fn check_pushgateway(found: &mut Findings, gateway: &Pushgateway) {
    let field = "spec.exporter.pushgateway";
    found.positive(&format!("{field}.interval"), &gateway.interval);
    let authority = gateway.url.split('/').nth(2).unwrap_or_default();
    let port = match authority.rsplit_once(':') {
        // The colons of an IPv6 address are inside its brackets.
        Some((_, port)) if !port.ends_with(']') => port.parse::<u16>().ok(),
        _ => Some(80),
    };
    if port.is_none_or(|port| port == 0) {
        // Without the address itself: it may have a password in it.
        found.problem(
            format!("{field}.url"),
            "must have a port from 1 to 65535, or none, such as http://pushgateway:9091",
        );
    }
}

/// Where the user wrote what stands at this path of the exporter's configuration.
fn field_of_spec(field: &str) -> String {
    let field = match field {
        "pushgateway.intervalSeconds" => "pushgateway.interval",
        "pushgateway.username" => "pushgateway.basicAuth.username",
        other => other,
    };
    let field = field.replace("timeoutSeconds", "timeout").replace(".label", ".path");
    match field.split_once('.') {
        Some(("health" | "metrics" | "plugins" | "logs", _)) => format!("spec.bot.{field}"),
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
