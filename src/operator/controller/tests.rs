use http_body_util::BodyExt;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::client::Body;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use serde_json::{Value, json};

use super::*;
use crate::operator::leader::NotLeader;
use crate::operator::monitors::Feed;
use crate::operator::{Settings, context};
use crate::plan::{Kind, Platform};

type Request = axum::http::Request<Body>;
type Response = axum::http::Response<Body>;

/// An operator and an API server that answers each request, given as "METHOD path body", by code and body.
struct World {
    context: Arc<Context>,
    feed: Feed,
}

impl World {
    fn new(leadership: Leadership, answer: impl Fn(&str) -> (u16, Value) + Send + 'static) -> Self {
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
            namespace: "rosey-system".into(),
            lease_name: "lease".into(),
            lease_duration: Duration::from_secs(15),
            identity: "me".into(),
            platform: Platform::default(),
            injector: None,
        };
        let metrics = Arc::new(Metrics::new().unwrap());
        let client = Client::new(service, "default");
        let (context, feed) = context(&client, &settings, Info::default(), leadership, metrics).unwrap();
        Self { context, feed }
    }

    /// Has the watch show a monitor, and returns it as the cache has it.
    fn seen(&mut self, monitor: &Value) -> Arc<RoseyMonitor> {
        let monitor: RoseyMonitor = serde_json::from_value(monitor.clone()).unwrap();
        let key = Key::of(&monitor);
        self.feed.observe(Event::Apply(DeserializeGuard(Ok(monitor))));
        self.context.monitors.get(&key).unwrap()
    }
}

fn monitor(uid: &str, generation: i64) -> Value {
    json!({
        "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor",
        "metadata": {"namespace": "bots", "name": "rosey", "uid": uid, "generation": generation, "resourceVersion": generation.to_string()},
        "spec": {"environment": "test", "selector": {"matchLabels": {"app": "rosey"}}, "bot": {"health": {"port": 8000}}},
    })
}

#[test]
fn a_failure_shows_once_it_has_lasted_for_longer_than_such_failures_do() {
    let (kind, name) = (Kind::ConfigMap, String::from("rosey-exporter"));
    let taken = apply::Error::NameTaken {
        kind,
        name: name.clone(),
    };
    let leaving = apply::Error::Leaving {
        kind,
        name: name.clone(),
    };
    let doing = "applied";
    let silent = apply::Error::Timeout { kind, name, doing };
    let first = |error: &apply::Error| (0..100).find(|&failures| tells(error, failures));
    assert_eq!(first(&taken), Some(0));
    assert_eq!(first(&silent), Some(3));
    assert_eq!(first(&leaving), Some(20));
    assert_eq!(first(&NotLeader.into()), None);
}

#[tokio::test]
async fn a_monitor_whose_turn_came_while_the_lease_was_overdue_has_another_one() {
    let mut world = World::new(Leadership::fixed(false), |_| unreachable!("nothing is written"));
    let monitor = world.seen(&monitor("m", 1));
    let error = reconcile(&monitor, &world.context).await.unwrap_err();
    assert_eq!(error.category(), "not_leader");
    let next = retry(monitor, &error, Arc::clone(&world.context));
    assert_eq!(next, Action::requeue(LATE));
}
