use std::sync::Arc;

use kube::runtime::watcher::Event;
use serde_json::json;

use super::*;
use crate::api::RoseyMonitor;

/// A monitor that takes the pods with `app: <app>`.
pub(super) fn monitor(namespace: &str, name: &str, app: &str) -> RoseyMonitor {
    serde_json::from_value(json!({
        "apiVersion": "rosey.dev/v1alpha1",
        "kind": "RoseyMonitor",
        "metadata": {"name": name, "namespace": namespace, "uid": "6b3c", "generation": 1},
        "spec": {
            "environment": "prod",
            "selector": {"matchLabels": {"app": app}},
            "bot": {"health": {"port": 8000, "path": "/api/health"}},
        },
    }))
    .unwrap()
}

/// What the handlers need, in an operator of the namespace `rosey-system` that knows `monitors`.
pub(super) fn service(monitors: &[RoseyMonitor]) -> Arc<server::Service> {
    let (all, mut writer) = crate::operator::monitors::pair();
    for monitor in monitors {
        writer.apply_watcher_event(&Event::Apply(monitor.clone()));
        all.index(monitor);
    }
    let (_, platform) = watch::channel(Arc::new(Platform::default()));
    let excluded = ["kube-system".to_owned(), "rosey-system".to_owned()].into();
    let facts = admission::Facts {
        monitors: all,
        platform,
        excluded,
    };
    Arc::new(server::Service {
        facts,
        metrics: Metrics::new(&Registry::new()).unwrap(),
    })
}

#[test]
fn the_certificate_carries_the_names_that_the_api_server_calls() {
    let service = Endpoint::Service {
        namespace: "rosey-system".into(),
        name: "rosey-operator".into(),
        port: 443,
    };
    assert_eq!(
        service.names().unwrap(),
        [
            "rosey-operator.rosey-system.svc",
            "rosey-operator.rosey-system.svc.cluster.local"
        ]
    );
    for (url, name) in [
        ("https://127.0.0.1:9443", "127.0.0.1"),
        ("https://[::1]:9443/", "::1"),
        ("https://[0:0:0:0:0:0:0:1]:9443", "::1"),
        ("https://[FD00:0::00A0]:9443", "fd00::a0"),
        ("https://hooks.example.org", "hooks.example.org"),
    ] {
        let names = Endpoint::Url(url.into()).names().unwrap();
        assert_eq!(names, [name], "{url}");
        let made = Certificates::issue(&names, Lives::default(), 1_800_000_000, None).unwrap();
        assert_eq!(made.due(&names, 1_800_000_000), certificates::Due::Nothing, "{url}");
    }
    for url in [
        "http://127.0.0.1:9443",
        "127.0.0.1:9443",
        "https://127.0.0.1:9443/hooks",
        "nonsense",
        "",
    ] {
        assert!(Endpoint::Url(url.into()).names().is_err(), "{url}");
    }
}
