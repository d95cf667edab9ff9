//! The group at the gateway that is this exporter's own, and nobody else's.

use std::collections::BTreeMap;
use std::fmt::Write;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use crate::sidecar::config::{Config, Pushgateway};

/// Where the series go.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Target {
    pub gateway: Pushgateway,
    /// The address of the group, which holds its labels.
    pub url: String,
    /// Whether what the bot itself calls metrics is among the series.
    pub passes_metrics: bool,
}

impl Target {
    /// What the configuration asks for; `host` is the instance where none is named.
    pub fn of(config: &Config, host: &str) -> Option<Self> {
        let gateway = config.pushgateway.clone()?;
        let mut labels: BTreeMap<&str, &str> = gateway.labels.iter().map(|(name, value)| (&**name, &**value)).collect();
        labels.entry("instance").or_insert(host);
        // The alerts of a monitor tell its pods apart by `pod`, which a scrape would add.
        if gateway.labels.contains_key("rosey_monitor") {
            labels.entry("pod").or_insert(host);
        }
        // Two bots on one host, prod and test, would otherwise replace each other's series at every push.
        if let Some(environment) = &config.environment {
            labels.entry("environment").or_insert(environment);
        }
        let mut url = format!("{}/metrics", gateway.url.trim_end_matches('/'));
        for (name, value) in std::iter::once(("job", &*gateway.job)).chain(labels) {
            segment(&mut url, name, value);
        }
        Some(Self {
            gateway,
            url,
            passes_metrics: config.metrics.is_some(),
        })
    }
}

/// Writes a label as the gateway reads it from a path. <https://github.com/prometheus/pushgateway#url>: a slash, and nothing at all,
/// are understood as base64 only; so is what a router would make another path of, such as `..`.
fn segment(url: &mut String, name: &str, value: &str) {
    let unreserved = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    let _ = if value.is_empty() {
        write!(url, "/{name}@base64/=")
    } else if value.bytes().all(unreserved) && !value.bytes().all(|b| b == b'.') {
        write!(url, "/{name}/{value}")
    } else {
        write!(url, "/{name}@base64/{}", BASE64_URL_SAFE_NO_PAD.encode(value))
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(config: &str) -> String {
        let config: Config = serde_saphyr::from_str(config).unwrap();
        config.check().unwrap();
        Target::of(&config, "rosey-0").unwrap().url
    }

    #[test]
    fn a_group_is_named_by_job_instance_environment_and_the_labels() {
        assert_eq!(
            url("pushgateway: {url: 'http://gateway:9091/'}"),
            "http://gateway:9091/metrics/job/rosey-bot/instance/rosey-0"
        );
        assert_eq!(
            url(
                "{environment: prod, pushgateway: {url: 'http://gateway/push', job: j, labels: {team: chat, instance: one}}}"
            ),
            "http://gateway/push/metrics/job/j/environment/prod/instance/one/team/chat"
        );
        assert_eq!(
            url("{environment: prod, pushgateway: {url: 'http://g', labels: {environment: test}}}"),
            "http://g/metrics/job/rosey-bot/environment/test/instance/rosey-0"
        );
    }

    #[test]
    fn the_group_of_a_monitors_exporter_names_its_pod() {
        assert_eq!(
            url("pushgateway: {url: 'http://g', labels: {namespace: bots, rosey_monitor: rosey}}"),
            "http://g/metrics/job/rosey-bot/instance/rosey-0/namespace/bots/pod/rosey-0/rosey_monitor/rosey"
        );
        assert_eq!(
            url("pushgateway: {url: 'http://g', labels: {pod: other, rosey_monitor: rosey}}"),
            "http://g/metrics/job/rosey-bot/instance/rosey-0/pod/other/rosey_monitor/rosey"
        );
    }

    #[test]
    fn a_value_that_a_path_can_not_hold_is_written_in_base64() {
        let written = |value: &str| {
            let mut url = String::new();
            segment(&mut url, "path", value);
            url
        };
        // The first, the second and the last are the gateway's own examples.
        for (value, path) in [
            ("/var/tmp", "/path@base64/L3Zhci90bXA"),
            ("", "/path@base64/="),
            ("..", "/path@base64/Li4"),
            ("a b%2F?", "/path@base64/YSBiJTJGPw"),
            ("v1.2_3~4-5", "/path/v1.2_3~4-5"),
            ("Προμηθεύς", "/path@base64/zqDPgc6_zrzOt864zrXPjc-C"),
        ] {
            assert_eq!(written(value), path);
        }
    }
}
