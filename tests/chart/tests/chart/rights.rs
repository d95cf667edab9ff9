//! The rights of the chart are those that the lab tries out, and where named namespaces are watched, no more than Roles give.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use chart::{documents, files, text};
use serde_json::Value;

use crate::{object, objects};

/// Verb, group, resource and the names that it is limited to.
type Right = (String, String, String, Vec<String>);

fn rights<'a>(roles: impl IntoIterator<Item = &'a Value>) -> BTreeSet<Right> {
    let list = |rule: &Value, field: &str| -> Vec<String> {
        let items = rule[field].as_array().into_iter().flatten();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in roles
        .into_iter()
        .flat_map(|role| role["rules"].as_array().into_iter().flatten())
    {
        for verb in list(rule, "verbs") {
            for group in list(rule, "apiGroups") {
                for resource in list(rule, "resources") {
                    rights.insert((verb.clone(), group.clone(), resource, list(rule, "resourceNames")));
                }
            }
        }
    }
    rights
}

/// The roles that are bound to the operator.
fn operators(objects: &[Value]) -> Vec<&Value> {
    let bound = objects.iter().filter(|object| {
        object["subjects"]
            .as_array()
            .is_some_and(|subjects| subjects.iter().any(|subject| subject["name"] == "rosey-operator"))
    });
    bound
        .map(|binding| {
            let role = objects.iter().find(|role| {
                role["kind"] == binding["roleRef"]["kind"]
                    && role["metadata"]["name"] == binding["roleRef"]["name"]
                    && role["metadata"]["namespace"] == binding["metadata"]["namespace"]
            });
            role.unwrap_or_else(|| panic!("{binding} binds a role that is not there"))
        })
        .collect()
}

#[test]
fn the_rights_are_those_that_the_lab_tries_out() -> Result<()> {
    let mut tried = Vec::new();
    for file in files("deploy/rbac", ".yaml")? {
        tried.extend(documents(&text(&file)?)?);
    }
    let tried = rights(&tried);
    ensure!(tried.len() > 40, "only {} rights are tried out", tried.len());
    for more in [
        &["--set", "exporter.updateInPlace=true,exporter.repair=true"][..],
        &[
            "--set",
            "exporter.updateInPlace=true,exporter.repair=true",
            "--set",
            "watchNamespaces={bots}",
        ],
    ] {
        let objects = objects(None, more)?;
        let mut given = rights(operators(&objects));
        if more.len() > 2 {
            // In namespaces of its own, nothing of the cluster is read.
            let of_the_cluster: BTreeSet<_> = tried.difference(&given).cloned().collect();
            let resources: BTreeSet<_> = of_the_cluster.iter().map(|right| right.2.as_str()).collect();
            assert_eq!(resources, BTreeSet::from(["customresourcedefinitions", "namespaces"]));
            given.extend(of_the_cluster);
        }
        assert_eq!(given, tried);
    }
    Ok(())
}

#[test]
fn no_right_is_wide_and_secrets_are_read_by_name() -> Result<()> {
    for values in chart::value_files()? {
        for (verb, group, resource, names) in rights(operators(&objects(values.as_deref(), &[])?)) {
            let right = format!("{verb} {group}/{resource} {names:?}");
            ensure!(!right.contains('*'), "{right}");
            ensure!(
                resource != "secrets" || verb == "create" || names == ["rosey-operator-webhook"],
                "{right}"
            );
            ensure!(
                !resource.starts_with("pods") || ["list", "watch"].contains(&verb.as_str()),
                "{right}"
            );
        }
    }
    Ok(())
}

#[test]
fn pods_are_written_only_where_values_ask_for_it() -> Result<()> {
    for (set, expected) in [
        ("exporter.updateInPlace=true", &["get pods", "patch pods"][..]),
        (
            "exporter.repair=true",
            &["create pods/eviction", "get pods", "patch pods"],
        ),
    ] {
        let objects = objects(None, &["--set", set])?;
        let given = rights([object(&objects, "ClusterRole", "rosey-operator-sidecars")]);
        let given: Vec<_> = given.iter().map(|right| format!("{} {}", right.0, right.2)).collect();
        assert_eq!(given, expected);
    }
    Ok(())
}

#[test]
fn in_named_namespaces_the_cluster_gives_only_what_the_webhooks_need() -> Result<()> {
    let cluster = |objects: &[Value]| -> Vec<String> {
        let own = objects
            .iter()
            .filter(|object| object["metadata"]["namespace"].is_null());
        own.map(|object| format!("{} {}", object["kind"], object["metadata"]["name"]).replace('"', ""))
            .collect()
    };
    let example = |name: &str| format!("{}/examples/{name}-values.yaml", chart::CHART);
    let with = objects(Some(&example("namespaced")), &[])?;
    assert_eq!(
        cluster(&with),
        [
            "CustomResourceDefinition roseymonitors.rosey.dev",
            "ClusterRole rosey-operator",
            "ClusterRoleBinding rosey-operator"
        ]
    );
    let groups: BTreeSet<_> = rights([object(&with, "ClusterRole", "rosey-operator")])
        .into_iter()
        .map(|right| right.1)
        .collect();
    let expected = ["admissionregistration.k8s.io", "rbac.authorization.k8s.io"].map(str::to_owned);
    assert_eq!(groups, BTreeSet::from(expected));

    let without = objects(Some(&example("namespaced-without-injection")), &[])?;
    assert_eq!(cluster(&without), Vec::<String>::new());
    ensure!(without.iter().all(|object| object["kind"] != "Service"));
    ensure!(rights(operators(&without)).iter().all(|right| right.2 != "secrets"));
    Ok(())
}
