use k8s_openapi::ByteString;
use kube::Client;
use kube::client::Body;
use serde_json::json;

use super::*;

const DAY: i64 = 86_400;
const START: i64 = 1_800_000_000;

fn names() -> Vec<String> {
    vec!["rosey-operator.rosey-system.svc".into()]
}

fn fresh() -> Certificates {
    Certificates::issue(&names(), Lives::default(), START, None).unwrap()
}

fn step(
    stored: Option<&Certificates>,
    memory: Option<&Certificates>,
    day: i64,
    published: &str,
) -> Option<Certificates> {
    next(
        stored,
        memory,
        &names(),
        Lives::default(),
        START + day * DAY,
        Some(published),
    )
    .unwrap()
}

#[test]
fn a_secret_with_data_of_somebody_else_is_left_alone() {
    let secret = |data: &[&str], label: Option<&str>| Secret {
        metadata: ObjectMeta {
            labels: label.map(|label| [(MANAGED_BY_LABEL.to_owned(), label.to_owned())].into()),
            ..ObjectMeta::default()
        },
        data: Some(
            data.iter()
                .map(|&key| (key.to_owned(), ByteString::default()))
                .collect(),
        ),
        ..Secret::default()
    };
    assert!(is_foreign(&secret(&["password"], None)));
    assert!(is_foreign(&secret(&["tls.crt"], Some("Helm"))));
    assert!(
        !is_foreign(&secret(&["tls.crt"], Some(MANAGED_BY))),
        "ours, spoilt or not"
    );
    assert!(!is_foreign(&secret(&[], None)), "nothing is lost");
}

/// A cluster in which there is nothing, and what it was asked for.
fn empty_cluster() -> (Client, tokio::task::JoinHandle<Vec<String>>) {
    let (service, mut handle) = tower_test::mock::pair::<axum::http::Request<Body>, axum::http::Response<Body>>();
    let client = Client::new(service, "rosey-system");
    let server = tokio::spawn(async move {
        let mut asked = Vec::new();
        while let Some((request, send)) = handle.next_request().await {
            asked.push(format!("{} {}", request.method(), request.uri().path()));
            let status = json!({"status": "Failure", "code": 404, "reason": "NotFound", "message": "none"});
            let answer = axum::http::Response::builder().status(404);
            send.send_response(answer.body(Body::from(status.to_string().into_bytes())).unwrap());
        }
        asked
    });
    (client, server)
}

/// A keeper of a replica that does not lead.
fn keeper(client: Client, metrics: Metrics) -> Keeper {
    Keeper {
        secrets: Api::default_namespaced(client.clone()),
        name: "webhook".into(),
        names: names(),
        lives: Lives::default(),
        owner: Arc::new(Owner::new(client, "role".into())),
        metrics,
        leader: watch::channel(true).1,
        leadership: Leadership::fixed(false),
        published: watch::channel(None).1,
        loaded: watch::channel(None).0,
    }
}

#[tokio::test]
async fn when_the_certificate_that_is_served_runs_out_is_told() {
    let registry = prometheus::Registry::new();
    let keeper = keeper(empty_cluster().0, Metrics::new(&registry).unwrap());
    let told = || {
        let family = registry
            .gather()
            .into_iter()
            .find(|family| family.name() == "rosey_injector_certificate_expiry_timestamp_seconds");
        family.unwrap().get_metric()[0].get_gauge().get_value()
    };
    assert!(told() < 1.0);
    keeper.take(&Secret {
        data: Some(fresh().data()),
        ..Secret::default()
    });
    let until = START + 30 * DAY;
    assert_eq!(told().to_string(), until.to_string());
}

#[tokio::test]
async fn nothing_is_written_over_a_foreign_secret_nor_by_a_replica_that_does_not_lead() {
    let (client, server) = empty_cluster();
    let keeper = keeper(client, Metrics::new(&prometheus::Registry::new()).unwrap());
    let foreign = Secret {
        data: Some([("password".to_owned(), ByteString::default())].into()),
        ..Secret::default()
    };
    let result = keeper.write(Some(&foreign), &fresh()).await;
    assert!(matches!(result, Err(KeepError::Foreign(_))), "{result:?}");
    let result = keeper.write(None, &fresh()).await;
    assert!(matches!(result, Err(KeepError::NotLeader(_))), "{result:?}");
    drop(keeper);
    let role = "GET /apis/rbac.authorization.k8s.io/v1/clusterroles/role";
    assert_eq!(server.await.unwrap(), [role]);
}

#[test]
fn other_owners_stay_and_an_earlier_one_of_our_name_goes() {
    let owner = |kind: &str, name: &str, uid: &str| OwnerReference {
        kind: kind.into(),
        name: name.into(),
        uid: uid.into(),
        ..OwnerReference::default()
    };
    let mut owners = vec![
        owner("ClusterRole", "rosey-operator", "old"),
        owner("Application", "chat", "a"),
    ];
    adopt(&mut owners, owner("ClusterRole", "rosey-operator", "new"));
    let uids: Vec<_> = owners.iter().map(|owner| owner.uid.as_str()).collect();
    assert_eq!(uids, ["a", "new"]);
}

#[test]
fn the_first_leader_makes_an_authority_and_a_leaf_and_then_rests() {
    let made = step(None, None, 0, "").unwrap();
    assert!(made.is_current());
    assert_eq!(step(Some(&made), Some(&made), 0, made.bundle()), None);
    assert_eq!(step(Some(&made), Some(&made), 19, made.bundle()), None);
}

#[test]
fn a_leaf_is_renewed_at_two_thirds_of_its_life_by_the_same_authority() {
    let first = fresh();
    let second = step(Some(&first), Some(&first), 20, first.bundle()).unwrap();
    assert_eq!(second.bundle(), first.bundle());
    assert_eq!(second.leaf().until, START + 50 * DAY);
}

#[test]
fn a_new_authority_is_trusted_before_a_leaf_of_it_is_served() {
    let first = fresh();
    let day = 250;
    let old = first
        .with_new_leaf(&names(), Lives::default(), START + 240 * DAY)
        .unwrap();
    let both = step(Some(&old), Some(&old), day, old.bundle()).unwrap();
    assert_eq!(both.served().cert, old.served().cert, "the old leaf goes on");
    assert!(both.bundle().ends_with(old.bundle()) && both.bundle().len() > old.bundle().len());
    assert_eq!(
        step(Some(&both), Some(&both), day, old.bundle()),
        None,
        "the API server trusts the old bundle only"
    );
    let new = step(Some(&both), Some(&both), day, both.bundle()).unwrap();
    assert!(new.is_current() && new.served().cert != old.served().cert);
    assert_eq!(new.bundle(), both.bundle());
    assert_eq!(step(Some(&new), Some(&new), day, new.bundle()), None);
}

#[test]
fn a_deleted_secret_is_made_again_without_a_gap_for_the_api_server() {
    let served = fresh();
    let again = step(None, Some(&served), 1, served.bundle()).unwrap();
    assert_eq!(again.served().cert, served.served().cert);
    assert!(again.bundle().contains(served.bundle()));
}

#[test]
fn after_a_long_sleep_everything_is_made_anew() {
    let first = fresh();
    let new = step(Some(&first), Some(&first), 400, first.bundle()).unwrap();
    assert!(new.is_current());
    assert!(
        !new.bundle().contains(first.bundle()),
        "an authority that has run out is not trusted any longer"
    );
}
