use kube::client::Body;

use super::*;

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
    let conditions = object.data["webhooks"][0]["matchConditions"].as_array_mut().unwrap();
    conditions.push(json!({"name": "never", "expression": "false"}));
    assert!(!stands(&object, &webhooks, None), "an addition");
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
    let registrar = Registrar {
        watched: BTreeSet::new(),
        client: client.clone(),
        endpoint: service_endpoint(),
        excluded: BTreeSet::new(),
        owner: Arc::new(Owner::new(client, "role".into())),
        // It has not heard yet: the Lease ran out while it slept.
        leader: watch::channel(true).1,
        leadership: Leadership::fixed(false),
        namespaces: watch::channel(BTreeSet::new()).1,
        monitors: kube::runtime::reflector::store().0,
        loaded: watch::channel(None).1,
        registered: watch::Sender::default(),
        published: watch::Sender::new(None),
    };
    let result = registrar.register(&["bots".to_owned()].into(), "PEM").await;
    assert!(matches!(result, Err(RegistrationError::NotLeader(_))), "{result:?}");
    assert!(registrar.published.borrow().is_none());
    drop(registrar);
    assert_eq!(server.await.unwrap(), ["GET", "GET"]);
}
