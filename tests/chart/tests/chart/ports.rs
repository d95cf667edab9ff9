//! The network policy allows what is used: the ports that the container serves, and no other.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use chart::value_files;
use serde_json::Value;

use crate::{arguments, object, objects};

/// The ports of the rules of one direction, with what they are open to.
fn ports(policy: &Value, direction: &str) -> BTreeSet<u64> {
    let rules = policy["spec"][direction].as_array().into_iter().flatten();
    let ports = rules.flat_map(|rule| rule["ports"].as_array().into_iter().flatten());
    ports.map(|port| port["port"].as_u64().unwrap()).collect()
}

#[test]
fn in_comes_what_the_container_serves_and_out_goes_what_the_api_server_and_dns_need() -> Result<()> {
    for values in value_files()? {
        for more in [&[][..], &["--set", "ports.http=18080,ports.webhook=19443"]] {
            let objects = objects(values.as_deref(), more)?;
            let policy = object(&objects, "NetworkPolicy", "rosey-operator");
            let deployment = object(&objects, "Deployment", "rosey-operator");
            let container = &deployment["spec"]["template"]["spec"]["containers"][0];
            let served: BTreeSet<u64> = container["ports"]
                .as_array()
                .unwrap()
                .iter()
                .map(|port| port["containerPort"].as_u64().unwrap())
                .collect();
            assert_eq!(ports(policy, "ingress"), served, "{values:?}");
            // What the process is told to listen on.
            let listened: BTreeSet<u64> = arguments(&objects)
                .iter()
                .filter_map(|flag| flag.split_once("listen=0.0.0.0:"))
                .map(|(_, port)| port.parse().unwrap())
                .collect();
            assert_eq!(listened, served, "{values:?}");
            assert_eq!(ports(policy, "egress"), BTreeSet::from([53, 443, 5353, 6443]));
            assert_eq!(policy["spec"]["policyTypes"], serde_json::json!(["Ingress", "Egress"]));
            assert_eq!(policy["spec"]["podSelector"], deployment["spec"]["selector"]);
            for name in ["livenessProbe", "readinessProbe"] {
                ensure!(container[name]["httpGet"]["port"] == "http");
            }
        }
    }
    Ok(())
}

#[test]
fn the_selectors_find_the_operator_and_not_the_pod_of_helm_test() -> Result<()> {
    let text = chart::rendered(chart::Helm::Four, None, &[])?;
    let objects = chart::documents(&text)?;
    let labels = |pod: &Value| pod["metadata"]["labels"].as_object().unwrap().clone();
    let operator = labels(&object(&objects, "Deployment", "rosey-operator")["spec"]["template"]);
    let check = labels(object(&objects, "Pod", "rosey-operator-check"));
    for (kind, name, path) in [
        ("Deployment", "rosey-operator", "/spec/selector/matchLabels"),
        ("Service", "rosey-operator-webhook", "/spec/selector"),
        ("PodMonitor", "rosey-operator", "/spec/selector/matchLabels"),
        ("PodDisruptionBudget", "rosey-operator", "/spec/selector/matchLabels"),
        ("NetworkPolicy", "rosey-operator", "/spec/podSelector/matchLabels"),
    ] {
        let selector = object(&objects, kind, name).pointer(path).unwrap().as_object().unwrap();
        ensure!(!selector.is_empty());
        let finds = |labels: &serde_json::Map<String, Value>| {
            selector.iter().all(|(key, value)| labels.get(key) == Some(value))
        };
        ensure!(finds(&operator), "{kind} {name} does not select the operator");
        ensure!(!finds(&check), "{kind} {name} selects the pod of helm test");
    }
    Ok(())
}
