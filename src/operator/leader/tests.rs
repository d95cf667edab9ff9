use kube::client::Body;
use serde_json::{Value, json};
use tower_test::mock;

use super::*;

type Request = axum::http::Request<Body>;
type Response = axum::http::Response<Body>;

#[tokio::test]
async fn a_leader_whose_lease_somebody_else_has_touched_leads_on_until_another_one_holds_it() {
    let (service, mut handle) = mock::pair::<Request, Response>();
    let held = |holder: &str, version: &str| {
        let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": 15});
        let metadata = json!({"name": "lease", "namespace": "system", "resourceVersion": version});
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec})
    };
    let failure = |code: u16, reason: &str| json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason});
    let steps: Vec<(&str, u16, Value)> = vec![
        ("GET", 404, failure(404, "NotFound")),
        ("POST", 201, held("me", "1")),
        ("PUT", 409, failure(409, "Conflict")),
        ("GET", 200, held("me", "2")),
        ("PUT", 200, held("me", "3")),
        ("PUT", 409, failure(409, "Conflict")),
        ("GET", 200, held("other", "4")),
    ];
    let server = tokio::spawn(async move {
        for (method, code, body) in steps {
            let (request, send) = handle.next_request().await.unwrap();
            assert_eq!(request.method(), method);
            let answer = axum::http::Response::builder().status(code);
            send.send_response(answer.body(Body::from(body.to_string().into_bytes())).unwrap());
        }
    });
    let settings = Settings {
        namespace: "system".into(),
        name: "lease".into(),
        identity: "me".into(),
        duration: Duration::from_secs(15),
    };
    let leadership = Leadership::default();
    let mut elector = Elector::new(Client::new(service, "default"), settings, leadership.clone());
    for leads in [true, true, true, false] {
        elector.attempt(Instant::now()).await.unwrap();
        assert_eq!(leadership.check().is_ok(), leads);
    }
    server.await.unwrap();
}

fn lease(holder: Option<&str>) -> Lease {
    let spec = LeaseSpec {
        holder_identity: holder.map(str::to_owned),
        lease_duration_seconds: Some(15),
        ..LeaseSpec::default()
    };
    Lease {
        spec: Some(spec),
        ..Lease::default()
    }
}

#[test]
fn a_lease_is_taken_when_nobody_holds_it_and_waited_for_while_another_one_renews_it() {
    let short = Duration::from_secs(14);
    let long = Duration::from_secs(15);
    assert_eq!(decide(None, "me"), Step::Take);
    for (holder, unchanged, step) in [
        (None, short, Step::Take),
        (Some(""), short, Step::Take),
        (Some("me"), short, Step::Take),
        (Some("other"), short, Step::Wait),
        (Some("other"), long, Step::Take),
    ] {
        assert_eq!(
            decide(Some((&lease(holder), unchanged)), "me"),
            step,
            "{holder:?} {unchanged:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn leadership_ends_by_the_clock_without_anybody_saying_so() {
    let leadership = Leadership::default();
    assert_eq!(leadership.check(), Err(NotLeader));
    leadership.extend(Instant::now() + Duration::from_secs(10));
    assert!(*leadership.subscribe().borrow());
    tokio::time::advance(Duration::from_secs(9)).await;
    assert_eq!(leadership.check(), Ok(()));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(leadership.check(), Err(NotLeader));
}

#[tokio::test]
async fn a_leader_that_ends_stops_at_once() {
    let leadership = Leadership::default();
    leadership.extend(Instant::now() + Duration::from_secs(10));
    leadership.end();
    assert_eq!(leadership.check(), Err(NotLeader));
    assert!(!*leadership.subscribe().borrow());
}
