//! The scrape: its times, and whether both sides of it speak the same way.

use super::Findings;
use crate::api::references::SecretOrConfigMap;
use crate::api::scrape::{Scheme, TlsConfig};
use crate::api::{Duration, RoseyMonitorSpec};

/// The longest interval of scrapes and evaluations, in seconds.
const LONGEST_INTERVAL: u64 = 120;

pub fn check(found: &mut Findings, spec: &RoseyMonitorSpec) {
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
    if let Some(tls) = &spec.scrape.tls_config {
        check_tls(found, tls, spec.scrape.scheme);
    }
    warn_of_other_speech(found, spec);
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

/// What prometheus-operator would refuse, and the whole `PodMonitor` with it.
fn check_tls(found: &mut Findings, tls: &TlsConfig, scheme: Scheme) {
    let field = "spec.scrape.tlsConfig";
    if scheme != Scheme::Https {
        found.problem(field, "needs spec.scrape.scheme: https; write that too, or remove it");
    }
    for (name, reference) in [("ca", &tls.ca), ("cert", &tls.cert)] {
        if let Some(SecretOrConfigMap { secret, config_map }) = reference
            && secret.is_some() == config_map.is_some()
        {
            found.problem(format!("{field}.{name}"), "must have exactly one of secret, configMap");
        }
    }
    if tls.cert.is_some() != tls.key_secret.is_some() {
        found.problem(field, "cert and keySecret go together; write both or none");
    }
    if let (Some(least), Some(most)) = (tls.min_version, tls.max_version)
        && least > most
    {
        found.problem(
            format!("{field}.minVersion"),
            "is above maxVersion; write the lower one here",
        );
    }
}

/// Only the file in the Secret says what the exporter asks for, and nobody here reads it. These are the ways in which it can't agree
/// with the scrape, or hardly can.
fn warn_of_other_speech(found: &mut Findings, spec: &RoseyMonitorSpec) {
    let (scrape, web) = (&spec.scrape, spec.exporter.web_config_secret_ref.is_some());
    let https = scrape.scheme == Scheme::Https;
    if https && !web {
        found.warn(
            "spec.scrape.scheme: without spec.exporter.webConfigSecretRef, the exporter of new pods speaks no TLS, and is asked in plain HTTP",
        );
    }
    if scrape.basic_auth.is_some() && !web {
        found.warn(
            "spec.scrape.basicAuth: without spec.exporter.webConfigSecretRef, the exporter of new pods asks for no password, and is shown none",
        );
    }
    if web && !https && scrape.basic_auth.is_none() {
        found.warn(
            "spec.exporter.webConfigSecretRef: Prometheus asks in plain HTTP and without a password; if the file wants TLS or a user, \
             write spec.scrape.scheme: https or spec.scrape.basicAuth",
        );
    }
    if scrape.basic_auth.is_some() && web && !https {
        found.warn(
            "spec.scrape.basicAuth: the password goes over the network in the clear without spec.scrape.scheme: https",
        );
    }
    let tls = scrape.tls_config.as_ref();
    if https && !tls.is_some_and(|tls| tls.server_name.is_some() || tls.insecure_skip_verify) {
        found.warn(
            "spec.scrape.tlsConfig.serverName: Prometheus asks each pod by its address, which hardly any certificate names; \
             write the name that the exporter's certificate is for",
        );
    }
}
