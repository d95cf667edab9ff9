//! Facts about the cluster, for the plan.

use k8s_openapi::apimachinery::pkg::version::Info;

use super::stack::AlertmanagerSpec;
use crate::plan::Platform;
use crate::plan::platform::Version;

/// The annotation by which prometheus-operator's definitions say of which version they are.
pub const VERSION_ANNOTATION: &str = "operator.prometheus.io/version";

/// The platform: `base`, the operator's own settings, completed by what the cluster says.
///
/// `prometheus_operator` is the value of [`VERSION_ANNOTATION`] of its definitions.
#[must_use]
pub fn discovered<'a>(
    base: &Platform,
    server: &Info,
    prometheus_operator: Option<&str>,
    alertmanagers: impl Iterator<Item = &'a AlertmanagerSpec>,
) -> Platform {
    Platform {
        prometheus_operator: base.prometheus_operator.or_else(|| prometheus_operator?.parse().ok()),
        alertmanager: base
            .alertmanager
            .or_else(|| alertmanagers.filter_map(AlertmanagerSpec::runs).min()),
        native_sidecars: base.native_sidecars && runs_native_sidecars(server),
        ..base.clone()
    }
}

/// True from API server 1.32 on: the oldest kubelet that it allows has native sidecars on by default.
fn runs_native_sidecars(server: &Info) -> bool {
    let digits = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse::<u32>().ok();
    match (digits(&server.major), digits(&server.minor)) {
        (Some(major), Some(minor)) => Version(major, minor, 0) >= Version(1, 32, 0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cluster_says_completes_the_settings_and_never_overrides_them() {
        let server = |minor: &str| Info {
            major: "1".into(),
            minor: minor.into(),
            ..Info::default()
        };
        let alertmanagers = ["0.28.0", "0.27.0"].map(|version| AlertmanagerSpec {
            version: Some(version.into()),
            ..AlertmanagerSpec::default()
        });
        let platform = discovered(
            &Platform::default(),
            &server("34"),
            Some("0.93.1"),
            alertmanagers.iter(),
        );
        assert_eq!(platform.prometheus_operator, Some(Version(0, 93, 1)));
        assert_eq!(platform.alertmanager, Some(Version(0, 27, 0)));
        assert!(platform.native_sidecars);

        assert!(!discovered(&Platform::default(), &server("31+"), None, [].iter()).native_sidecars);
        let base = Platform {
            alertmanager: Some(Version(0, 20, 0)),
            ..Platform::default()
        };
        assert_eq!(
            discovered(&base, &server("32+"), None, alertmanagers.iter()).alertmanager,
            Some(Version(0, 20, 0))
        );
    }
}
