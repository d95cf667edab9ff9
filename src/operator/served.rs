//! Which kinds of prometheus-operator the API server serves. Whoever is known to it may ask that, where their definitions may
//! not be read.

use std::collections::BTreeSet;

use kube::Client;

use crate::cluster::client::{RequestError, answered};

/// Those that have kinds of which we know.
const VERSIONS: [&str; 2] = ["monitoring.coreos.com/v1", "monitoring.coreos.com/v1alpha1"];

/// Their plural names; none where prometheus-operator's definitions are not installed.
///
/// # Errors
/// The API server does not answer, or does not say.
pub async fn served(client: &Client) -> Result<BTreeSet<String>, RequestError> {
    let mut plurals = BTreeSet::new();
    for version in VERSIONS {
        match answered(client.list_api_group_resources(version)).await {
            // What has a slash in it is a part of another one, such as its status.
            Ok(list) => {
                let names = list.resources.into_iter().map(|resource| resource.name);
                plurals.extend(names.filter(|name| !name.contains('/')));
            }
            Err(RequestError::Refused(error)) if is_not_found(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(plurals)
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::operator::leader::Leadership;
    use crate::operator::world::{World, failure};

    fn resources(version: &str, names: &[&str]) -> (u16, Value) {
        let resource =
            |name: &&str| json!({"name": name, "singularName": "", "namespaced": true, "kind": "K", "verbs": ["list"]});
        let resources: Vec<_> = names.iter().map(resource).collect();
        let list =
            json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": resources});
        (200, list)
    }

    async fn asked(v1: (u16, Value), v1alpha1: (u16, Value)) -> Result<BTreeSet<String>, RequestError> {
        let world = World::new(Leadership::fixed(false), move |text| {
            if text.contains("v1alpha1") {
                v1alpha1.clone()
            } else {
                v1.clone()
            }
        });
        served(&world.context.client).await
    }

    #[tokio::test]
    async fn the_kinds_of_both_versions_are_served_and_a_version_that_is_not_there_has_none() {
        let v1 = || resources(VERSIONS[0], &["prometheuses", "prometheuses/status", "podmonitors"]);
        let v1alpha1 = || resources(VERSIONS[1], &["alertmanagerconfigs"]);
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<BTreeSet<_>>();
        let all = asked(v1(), v1alpha1()).await.unwrap();
        assert_eq!(all, names(&["alertmanagerconfigs", "podmonitors", "prometheuses"]));
        let gone = || failure(404, "NotFound");
        assert_eq!(
            asked(v1(), gone()).await.unwrap(),
            names(&["podmonitors", "prometheuses"])
        );
        assert_eq!(asked(gone(), gone()).await.unwrap(), names(&[]));
        // Nothing is known then, which is not the same.
        assert!(asked(v1(), failure(503, "ServiceUnavailable")).await.is_err());
    }
}
