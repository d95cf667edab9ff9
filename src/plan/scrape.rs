//! The `PodMonitor`: which pods are scraped, and what their series are called.

use super::Platform;
use super::platform::Version;
use super::validate::Valid;
use crate::api::references::{ConfigMapKeyRef, SecretKeyRef, SecretOrConfigMap};
use crate::api::scrape::{BasicAuth, Scheme, TlsConfig, TlsVersion};
use crate::monitoring::pod_monitor::{
    PodMonitorPodMetricsEndpoints as Endpoint, PodMonitorPodMetricsEndpointsBasicAuth as Auth,
    PodMonitorPodMetricsEndpointsBasicAuthPassword as Password,
    PodMonitorPodMetricsEndpointsBasicAuthUsername as Username, PodMonitorPodMetricsEndpointsRelabelings as Relabeling,
    PodMonitorPodMetricsEndpointsRelabelingsAction as Action, PodMonitorPodMetricsEndpointsScheme as AskedScheme,
    PodMonitorPodMetricsEndpointsTlsConfig as Tls, PodMonitorPodMetricsEndpointsTlsConfigCa as Ca,
    PodMonitorPodMetricsEndpointsTlsConfigCaConfigMap as CaConfigMap,
    PodMonitorPodMetricsEndpointsTlsConfigCaSecret as CaSecret, PodMonitorPodMetricsEndpointsTlsConfigCert as Cert,
    PodMonitorPodMetricsEndpointsTlsConfigCertConfigMap as CertConfigMap,
    PodMonitorPodMetricsEndpointsTlsConfigCertSecret as CertSecret,
    PodMonitorPodMetricsEndpointsTlsConfigKeySecret as KeySecret,
    PodMonitorPodMetricsEndpointsTlsConfigMaxVersion as MaxVersion,
    PodMonitorPodMetricsEndpointsTlsConfigMinVersion as MinVersion, PodMonitorSelector,
    PodMonitorSelectorMatchExpressions, PodMonitorSpec,
};
use crate::sidecar;

/// The annotation [`crate::api::INJECTED_ANNOTATION`] as service discovery names it.
const INJECTED: &str = "__meta_kubernetes_pod_annotation_rosey_dev_injected";
/// The annotation [`crate::api::SCHEME_ANNOTATION`].
const SCHEME: &str = "__meta_kubernetes_pod_annotation_rosey_dev_scheme";

pub fn pod_monitor(monitor: &Valid<'_>, platform: &Platform) -> PodMonitorSpec {
    let selector = &monitor.spec.selector;
    let expressions = selector.match_expressions.as_ref().map(|expressions| {
        let expression = |e: &k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement| {
            PodMonitorSelectorMatchExpressions {
                key: e.key.clone(),
                operator: e.operator.clone(),
                values: e.values.clone(),
            }
        };
        expressions.iter().map(expression).collect()
    });
    PodMonitorSpec {
        selector: PodMonitorSelector {
            match_labels: selector.match_labels.clone(),
            match_expressions: expressions,
        },
        pod_metrics_endpoints: Some(endpoints(monitor, platform)),
        ..PodMonitorSpec::default()
    }
}

/// One for all pods, where they are asked in plain HTTP. Otherwise another one for those that are older than the web configuration:
/// they understand nothing else until they are restarted, and they are shown no password.
fn endpoints(monitor: &Valid<'_>, platform: &Platform) -> Vec<Endpoint> {
    let scrape = &monitor.spec.scrape;
    let plain = Endpoint {
        port: Some(sidecar::PORT_NAME.into()),
        path: Some("/metrics".into()),
        interval: Some(scrape.interval.to_string()),
        scrape_timeout: Some(scrape.timeout.to_string()),
        honor_labels: Some(false),
        ..Endpoint::default()
    };
    let of_plain_pods = |action| Relabeling {
        action: Some(action),
        source_labels: Some(vec![SCHEME.into()]),
        regex: Some("http".into()),
        ..Relabeling::default()
    };
    if scrape.scheme == Scheme::Http && scrape.basic_auth.is_none() {
        return vec![Endpoint {
            relabelings: Some(relabelings(monitor, None)),
            ..plain
        }];
    }
    let asked = Endpoint {
        scheme: (scrape.scheme == Scheme::Https).then_some(AskedScheme::Https),
        tls_config: scrape.tls_config.as_ref().map(|config| tls(config, platform)),
        basic_auth: scrape.basic_auth.as_ref().map(auth),
        relabelings: Some(relabelings(monitor, Some(of_plain_pods(Action::Drop)))),
        ..plain.clone()
    };
    let older = Endpoint {
        relabelings: Some(relabelings(monitor, Some(of_plain_pods(Action::Keep)))),
        ..plain
    };
    // The plain one stays the first: a pool that is reloaded asks its targets of before by its new settings, until it has found them anew
    // (scrapePool.reload and Sync in Prometheus' scrape/scrape.go), and would show them the password.
    vec![older, asked]
}

/// Which pods are scraped, `narrower` applied, and what their series are called.
fn relabelings(monitor: &Valid<'_>, narrower: Option<Relabeling>) -> Vec<Relabeling> {
    let set = |label: &str, value: &str| Relabeling {
        target_label: Some(label.into()),
        replacement: Some(value.into()),
        ..Relabeling::default()
    };
    // A pod that another monitor's exporter was put into, or none, is not ours.
    let ours = Relabeling {
        action: Some(Action::Keep),
        source_labels: Some(vec![INJECTED.into()]),
        regex: Some(format!("{}@.+", monitor.name)),
        ..Relabeling::default()
    };
    // The default is the pod's address, which would stand in messages.
    let instance = Relabeling {
        source_labels: Some(vec!["__meta_kubernetes_pod_name".into()]),
        target_label: Some("instance".into()),
        ..Relabeling::default()
    };
    let named = [
        set("rosey_monitor", monitor.name),
        set("environment", &monitor.spec.environment),
        instance,
    ];
    std::iter::once(ours).chain(narrower).chain(named).collect()
}

/// What this platform silently drops: versions of TLS are known since prometheus-operator 0.76.
pub fn lost_tls_versions(monitor: &Valid<'_>, platform: &Platform) -> Option<String> {
    let config = monitor.spec.scrape.tls_config.as_ref()?;
    let asked = config.min_version.is_some() || config.max_version.is_some();
    (asked && !knows_tls_versions(platform)).then(|| {
        "spec.scrape.tlsConfig: minVersion and maxVersion need prometheus-operator 0.76; they are left out".into()
    })
}

fn knows_tls_versions(platform: &Platform) -> bool {
    platform.has(Version(0, 76, 0), Version(0, 0, 0))
}

fn tls(config: &TlsConfig, platform: &Platform) -> Tls {
    let known = |version: Option<TlsVersion>| version.filter(|_| knows_tls_versions(platform));
    Tls {
        ca: config.ca.clone().map(|SecretOrConfigMap { secret, config_map }| Ca {
            secret: secret.map(|SecretKeyRef { name, key }| CaSecret {
                name: Some(name),
                key,
                optional: None,
            }),
            config_map: config_map.map(|ConfigMapKeyRef { name, key }| CaConfigMap {
                name: Some(name),
                key,
                optional: None,
            }),
        }),
        cert: config
            .cert
            .clone()
            .map(|SecretOrConfigMap { secret, config_map }| Cert {
                secret: secret.map(|SecretKeyRef { name, key }| CertSecret {
                    name: Some(name),
                    key,
                    optional: None,
                }),
                config_map: config_map.map(|ConfigMapKeyRef { name, key }| CertConfigMap {
                    name: Some(name),
                    key,
                    optional: None,
                }),
            }),
        key_secret: config.key_secret.clone().map(|SecretKeyRef { name, key }| KeySecret {
            name: Some(name),
            key,
            optional: None,
        }),
        server_name: config.server_name.clone(),
        insecure_skip_verify: config.insecure_skip_verify.then_some(true),
        min_version: known(config.min_version).map(|version| match version {
            TlsVersion::Tls12 => MinVersion::Tls12,
            TlsVersion::Tls13 => MinVersion::Tls13,
        }),
        max_version: known(config.max_version).map(|version| match version {
            TlsVersion::Tls12 => MaxVersion::Tls12,
            TlsVersion::Tls13 => MaxVersion::Tls13,
        }),
    }
}

fn auth(BasicAuth { username, password }: &BasicAuth) -> Auth {
    Auth {
        username: Some(Username {
            name: Some(username.name.clone()),
            key: username.key.clone(),
            optional: None,
        }),
        password: Some(Password {
            name: Some(password.name.clone()),
            key: password.key.clone(),
            optional: None,
        }),
    }
}
