//! An operator without a cluster, for tests of what it asks the API server.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::Client;
use kube::client::Body;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::area::Area;
use super::controller::Context;
use super::key::Key;
use super::leader::Leadership;
use super::metrics::Metrics;
use super::monitors::Feed;
use super::{Settings, context, upkeep};
use crate::api::{INJECTED_ANNOTATION, RoseyMonitor};
use crate::plan::Platform;
use crate::sidecar::CONTAINER;

type Request = axum::http::Request<Body>;
type Response = axum::http::Response<Body>;

/// An operator and an API server that answers each request, given as "METHOD path body", by code and body.
pub struct World {
    pub context: Arc<Context>,
    pub feed: Feed,
}

impl World {
    /// One that leaves pods alone.
    pub fn new(leadership: Leadership, answer: impl Fn(&str) -> (u16, Value) + Send + 'static) -> Self {
        Self::that_keeps(upkeep::Settings::default(), leadership, answer)
    }

    pub fn that_keeps(
        upkeep: upkeep::Settings,
        leadership: Leadership,
        answer: impl Fn(&str) -> (u16, Value) + Send + 'static,
    ) -> Self {
        let (service, mut handle) = tower_test::mock::pair::<Request, Response>();
        tokio::spawn(async move {
            while let Some((request, send)) = handle.next_request().await {
                let text = format!("{} {}", request.method(), request.uri());
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let (code, body) = answer(&format!("{text} {}", String::from_utf8_lossy(&body)));
                let body = Body::from(body.to_string().into_bytes());
                send.send_response(axum::http::Response::builder().status(code).body(body).unwrap());
            }
        });
        let settings = Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            concurrency: 1,
            watched: BTreeSet::new(),
            namespace: "rosey-system".into(),
            lease_name: "lease".into(),
            lease_duration: Duration::from_secs(15),
            identity: "me".into(),
            platform: Platform::default(),
            injector: None,
            upkeep,
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let client = Client::new(service, "default");
        let (context, feed) = context(&client, &settings, Info::default(), leadership, metrics).unwrap();
        Self { context, feed }
    }

    /// Has the watch show a monitor, and returns it as the cache has it.
    pub fn seen(&mut self, monitor: &Value) -> Arc<RoseyMonitor> {
        let monitor: RoseyMonitor = serde_json::from_value(monitor.clone()).unwrap();
        let key = Key::of(&monitor);
        self.feed
            .observe(&Area::Cluster, Event::Apply(DeserializeGuard(Ok(monitor))));
        self.context.monitors.get(&key).unwrap()
    }

    /// Has the watch show a pod.
    pub fn shown(&self, pod: &Value) {
        let pod = serde_json::from_value(pod.clone()).unwrap();
        self.context.pods.observe(&Area::Cluster, Event::Apply(pod));
    }
}

pub fn monitor(uid: &str, generation: i64) -> Value {
    json!({
        "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor",
        "metadata": {"namespace": "bots", "name": "rosey", "uid": uid, "generation": generation, "resourceVersion": generation.to_string()},
        "spec": {"environment": "test", "selector": {"matchLabels": {"app": "rosey"}}, "bot": {"health": {"port": 8000}}},
    })
}

/// A pod with the exporter of that monitor, whose container `1` runs.
pub fn carrying(image: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "bots", "name": "rosey-1", "uid": "p", "labels": {"app": "rosey"},
            "annotations": {INJECTED_ANNOTATION: "rosey@1"},
        },
        "spec": {"containers": [{"name": "bot", "image": "bot"}, {"name": CONTAINER, "image": image}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": CONTAINER, "containerID": "1", "state": {"running": {}}}]},
    })
}

pub fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason});
    (code, status)
}

/// What the API server was asked that starts like this.
pub fn asked(log: &Mutex<Vec<String>>, start: &str) -> Vec<String> {
    let log = log.lock().unwrap();
    log.iter().filter(|text| text.starts_with(start)).cloned().collect()
}
