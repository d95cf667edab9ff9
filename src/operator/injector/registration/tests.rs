use http_body_util::BodyExt;
use kube::client::Body;
use kube::runtime::watcher::Event;

use super::*;
use crate::operator::injector::certificates::Lives;

fn service_endpoint() -> Endpoint {
    Endpoint::Service {
        namespace: "rosey-system".into(),
        name: "rosey-operator".into(),
        port: 443,
    }
}

fn owner(uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: "rbac.authorization.k8s.io/v1".into(),
        kind: "ClusterRole".into(),
        name: "rosey-operator".into(),
        uid: uid.into(),
        ..OwnerReference::default()
    }
}

fn live(webhooks: &Value, uid: &str) -> DynamicObject {
    let kind = ApiResource::erase::<MutatingWebhookConfiguration>(&());
    serde_json::from_value(body(&kind, INJECTOR, webhooks, Some(&owner(uid)))).unwrap()
}

#[test]
fn the_registration_of_pods_looks_like_this() {
    let kind = ApiResource::erase::<MutatingWebhookConfiguration>(&());
    let webhooks =
        serde_json::to_value(mutating(&service_endpoint(), vec!["bots".into(), "chat".into()], "PEM")).unwrap();
    insta::assert_yaml_snapshot!(body(&kind, INJECTOR, &webhooks, Some(&owner("5f0c"))));
}

#[test]
fn the_registration_of_monitors_looks_like_this() {
    let kind = ApiResource::erase::<ValidatingWebhookConfiguration>(&());
    let endpoint = Endpoint::Url("https://127.0.0.1:9443/".into());
    let webhooks = serde_json::to_value([validating(&endpoint, &BTreeSet::new(), "PEM")]).unwrap();
    insta::assert_yaml_snapshot!(body(&kind, VALIDATOR, &webhooks, None));
}

#[test]
fn an_operator_of_some_namespaces_judges_the_monitors_of_these() {
    let watched = BTreeSet::from(["bots".to_owned(), "games".to_owned()]);
    let webhook = serde_json::to_value(validating(&service_endpoint(), &watched, "PEM")).unwrap();
    let named = json!({"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["bots", "games"]});
    assert_eq!(webhook["namespaceSelector"]["matchExpressions"], json!([named]));
}

#[test]
fn without_namespaces_no_pod_is_asked_for() {
    assert_eq!(mutating(&service_endpoint(), Vec::new(), "PEM"), []);
}

#[test]
fn an_operator_that_has_just_started_leaves_registered_namespaces_alone_as_long_as_they_have_a_monitor() {
    let set = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<BTreeSet<_>>();
    let webhooks =
        serde_json::to_value(mutating(&service_endpoint(), vec!["bots".into(), "left".into()], "PEM")).unwrap();
    let live = live(&webhooks, "5f0c");
    let inhabited = set(&["bots", "chat", "new"]);
    assert_eq!(namespaces(&set(&[]), Some(&live), &inhabited), set(&["bots"]));
    assert_eq!(
        namespaces(&set(&["chat"]), Some(&live), &inhabited),
        set(&["bots", "chat"])
    );
    assert_eq!(namespaces(&set(&["chat"]), None, &inhabited), set(&["chat"]));
    assert_eq!(namespaces(&set(&[]), Some(&live), &set(&[])), set(&[]));
}

#[test]
fn only_a_difference_that_matters_is_repaired() {
    let webhooks = serde_json::to_value(mutating(&service_endpoint(), vec!["bots".into()], "PEM")).unwrap();
    let mut object = live(&webhooks, "5f0c");
    object
        .metadata
        .labels
        .get_or_insert_default()
        .insert("team".into(), "chat".into());
    assert!(
        stands(&object, &webhooks, Some(&owner("5f0c"))),
        "somebody's label stays"
    );
    assert!(stands(&object, &webhooks, None));
    assert!(
        !stands(&object, &webhooks, Some(&owner("77aa"))),
        "an owner that was made anew"
    );

    object.data["webhooks"][0]["timeoutSeconds"] = json!(30);
    assert!(!stands(&object, &webhooks, None), "an edit");
    let mut object = live(&webhooks, "5f0c");
    object.data["webhooks"][0]["matchConditions"] = json!([{"name": "never", "expression": "false"}]);
    assert!(!stands(&object, &webhooks, None), "an addition");
}

fn registrar(client: Client, leadership: Leadership) -> Registrar {
    Registrar {
        watched: BTreeSet::new(),
        client: client.clone(),
        endpoint: service_endpoint(),
        excluded: BTreeSet::new(),
        owner: Arc::new(Owner::new(client, "role".into())),
        leader: watch::channel(true).1,
        leadership,
        namespaces: watch::channel(BTreeSet::new()).1,
        monitors: kube::runtime::reflector::store().0,
        loaded: watch::channel(None).1,
        registered: watch::Sender::default(),
        published: watch::Sender::new(None),
    }
}

#[tokio::test(start_paused = true)]
async fn pods_are_asked_for_as_long_as_only_the_registration_of_monitors_fails() {
    let bots = BTreeSet::from(["bots".to_owned()]);
    for (fails, then) in [(VALIDATOR, bots.clone()), (INJECTOR, BTreeSet::new())] {
        let (service, mut handle) = tower_test::mock::pair::<axum::http::Request<Body>, axum::http::Response<Body>>();
        let mut registrar = registrar(Client::new(service, "rosey-system"), Leadership::fixed(true));
        let (monitors, mut writer) = kube::runtime::reflector::store();
        writer.apply_watcher_event(&Event::Init);
        writer.apply_watcher_event(&Event::InitDone);
        let made = Certificates::issue(&["localhost".to_owned()], Lives::default(), 1_800_000_000, None).unwrap();
        registrar.monitors = monitors;
        registrar.namespaces = watch::channel(bots.clone()).1;
        registrar.loaded = watch::channel(Some(Arc::new(made))).1;
        registrar.registered.send_replace(bots.clone());
        let registered = registrar.registered.subscribe();
        let server = async {
            let (mut rounds, mut watches) = (Vec::new(), Vec::new());
            while let Some((request, send)) = handle.next_request().await {
                let (method, path) = (request.method().to_string(), request.uri().path().to_owned());
                let (code, body) = if request
                    .uri()
                    .query()
                    .is_some_and(|query| query.contains("fieldSelector"))
                {
                    // They tell of nothing.
                    watches.push(send);
                    continue;
                } else if path.ends_with(fails) {
                    (
                        500,
                        json!({"status": "Failure", "code": 500, "reason": "InternalError", "message": "no"}),
                    )
                } else if method == "PATCH" {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    (200, serde_json::from_slice(&body).unwrap())
                } else {
                    (
                        404,
                        json!({"status": "Failure", "code": 404, "reason": "NotFound", "message": "none"}),
                    )
                };
                if path.contains("clusterroles") {
                    rounds.push(registered.borrow().clone());
                }
                if rounds.len() == 3 {
                    return rounds;
                }
                let answer = axum::http::Response::builder().status(code);
                send.send_response(answer.body(Body::from(Value::to_string(&body).into_bytes())).unwrap());
            }
            rounds
        };
        tokio::select! {
            () = registrar.run() => unreachable!("it runs until dropped"),
            rounds = server => assert_eq!(rounds, [bots.clone(), then.clone(), then], "{fails}"),
        }
    }
}

#[tokio::test]
async fn a_replica_that_leads_no_longer_registers_nothing() {
    let (service, mut handle) = tower_test::mock::pair::<axum::http::Request<Body>, axum::http::Response<Body>>();
    let client = Client::new(service, "rosey-system");
    let server = tokio::spawn(async move {
        let mut asked = Vec::new();
        while let Some((request, send)) = handle.next_request().await {
            asked.push(request.method().to_string());
            let status = json!({"status": "Failure", "code": 404, "reason": "NotFound", "message": "none"});
            let answer = axum::http::Response::builder().status(404);
            send.send_response(answer.body(Body::from(status.to_string().into_bytes())).unwrap());
        }
        asked
    });
    // It has not heard yet: the Lease ran out while it slept.
    let registrar = registrar(client, Leadership::fixed(false));
    let result = registrar.register(&["bots".to_owned()].into(), "PEM").await;
    assert!(matches!(result, Err(RegistrationError::NotLeader(_))), "{result:?}");
    assert!(registrar.published.borrow().is_none());
    drop(registrar);
    assert_eq!(server.await.unwrap(), ["GET", "GET"]);
}
