//! What `kubectl rosey render` prints is what the operator applies.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use lab::rosey::{OPERATOR, text};
use lab::{AuditLevel, Lab};
use serde_json::Value;

use crate::scene::{MONITOR, PATIENCE, Scene};

/// Objects as compact JSON with sorted keys, by kind and name.
type Objects = BTreeMap<String, String>;

#[tokio::test(flavor = "multi_thread")]
async fn what_render_prints_is_byte_for_byte_what_the_operator_applies_and_what_the_cluster_keeps() -> Result<()> {
    let scene = Scene::of(Lab::builder().without_stack().audit(AuditLevel::RequestResponse)).await?;
    for (example, namespace) in [("examples/rosey.yaml", "bots"), ("examples/s0-rosey.yaml", "s0")] {
        scene.lab.namespace(namespace).await?;
        let manifest = text(example)?.replace("namespace: bots", &format!("namespace: {namespace}"));
        let file = scene.lab.logs_dir().join(format!("{namespace}.yaml"));
        std::fs::write(&file, &manifest)?;
        let rendered = rendered(&scene, &file.display().to_string()).await?;
        // ConfigMap, PodMonitor, PrometheusRule, inhibitions, and one object a channel.
        let monitor: Value = serde_saphyr::from_str(&manifest)?;
        let channels = monitor["spec"]["notifications"]["channels"]
            .as_array()
            .map_or(0, Vec::len);
        assert_eq!(rendered.len(), 4 + channels, "{:?}", rendered.keys());

        let mark = scene.lab.audit().mark().await?;
        scene.lab.apply(&manifest).await?;
        scene
            .lab
            .until_condition(PATIENCE, MONITOR, namespace, "rosey", "Ready")
            .await?;
        same(&rendered, &applied(&scene, mark).await?, "applied");
        same(&rendered, &kept(&scene, namespace, &rendered).await?, "kept");
        same(
            &rendered,
            &printed_as_yaml(&scene, &file.display().to_string()).await?,
            "read by kubectl",
        );
    }
    scene.lab.nothing_was_forbidden().await
}

/// What kubectl reads in the YAML that is printed; it is not asked to add anything.
async fn printed_as_yaml(scene: &Scene, monitor: &str) -> Result<BTreeMap<String, Value>> {
    let file = format!("{monitor}.rendered");
    std::fs::write(&file, scene.rosey(&["render", monitor]).await?)?;
    let read = [
        "create",
        "--dry-run=client",
        "--validate=false",
        "-o",
        "json",
        "-f",
        &file,
    ];
    let json = scene.lab.kubectl(&read).await?;
    let mut objects = BTreeMap::new();
    for document in serde_json::Deserializer::from_str(&json).into_iter::<Value>() {
        let document = document?;
        objects.insert(key(&document), document);
    }
    Ok(objects)
}

async fn rendered(scene: &Scene, file: &str) -> Result<BTreeMap<String, Value>> {
    let printed = scene.rosey(&["render", "-o", "json", file]).await?;
    let mut list: Value = serde_json::from_str(&printed)?;
    let items = list["items"].as_array_mut().context("a list")?;
    Ok(items.drain(..).map(|item| (key(&item), item)).collect())
}

/// The bodies that the operator sent, without the ownerReference and without the precondition that nobody has made the object
/// meanwhile.
async fn applied(scene: &Scene, mark: lab::Mark) -> Result<BTreeMap<String, Value>> {
    let mut bodies = BTreeMap::new();
    for request in scene.lab.audit().writes_by(OPERATOR, mark).await? {
        let reference = &request.object_ref;
        let is_ours =
            ["configmaps", "podmonitors", "prometheusrules", "alertmanagerconfigs"].contains(&&*reference.resource);
        if !is_ours {
            continue;
        }
        let mut body = request.request_object.clone();
        let owners = metadata(&mut body)?.remove("ownerReferences");
        ensure!(
            owners.is_some_and(|owners| owners[0]["kind"] == "RoseyMonitor"),
            "no owner: {request}"
        );
        let precondition = metadata(&mut body)?.remove("resourceVersion");
        ensure!(
            precondition.is_some_and(|version| version == "1"),
            "not the first write: {request}"
        );
        let twice = bodies.insert(key(&body), body);
        ensure!(twice.is_none(), "applied twice: {request}");
    }
    Ok(bodies)
}

/// The objects in the cluster, without what the server adds: its metadata, and the defaults that it fills in when it is given
/// what was rendered.
async fn kept(scene: &Scene, namespace: &str, rendered: &BTreeMap<String, Value>) -> Result<BTreeMap<String, Value>> {
    let mut objects = BTreeMap::new();
    for (key, rendered) in rendered {
        let (version, kind) = (&rendered["apiVersion"], &rendered["kind"]);
        let kind = format!(
            "{}/{}",
            version.as_str().context("apiVersion")?,
            kind.as_str().context("kind")?
        );
        let name = rendered["metadata"]["name"].as_str().context("name")?;
        let (api_version, short) = kind.rsplit_once('/').context("a kind")?;
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = format!("{short}.{version}.{group}");
        let yaml = [
            "get",
            &resource,
            name,
            "-n",
            namespace,
            "-o",
            "yaml",
            "--show-managed-fields",
        ];
        let mut object: Value = serde_saphyr::from_str(&scene.lab.kubectl(&yaml).await?)?;
        for added in [
            "uid",
            "resourceVersion",
            "generation",
            "creationTimestamp",
            "managedFields",
            "ownerReferences",
        ] {
            let was = metadata(&mut object)?.remove(added);
            ensure!(was.is_some() || added == "generation", "{key} has no {added}");
        }
        without_defaults(&mut object, rendered);
        objects.insert(key.clone(), object);
    }
    Ok(objects)
}

/// Drops what the `PodMonitor`'s definition fills in, where it was not rendered: the action of a relabeling.
fn without_defaults(object: &mut Value, rendered: &Value) {
    match (object, rendered) {
        (Value::Object(fields), Value::Object(wanted)) => {
            fields.retain(|name, value| wanted.contains_key(name) || name != "action" || value != "replace");
            for (name, value) in fields {
                if let Some(wanted) = wanted.get(name) {
                    without_defaults(value, wanted);
                }
            }
        }
        (Value::Array(items), Value::Array(wanted)) => {
            items
                .iter_mut()
                .zip(wanted)
                .for_each(|(item, wanted)| without_defaults(item, wanted));
        }
        _ => {}
    }
}

fn same(rendered: &BTreeMap<String, Value>, other: &BTreeMap<String, Value>, what: &str) {
    let bytes = |objects: &BTreeMap<String, Value>| -> Objects {
        objects
            .iter()
            .map(|(key, object)| (key.clone(), object.to_string()))
            .collect()
    };
    let (rendered, other) = (bytes(rendered), bytes(other));
    assert!(
        rendered.keys().eq(other.keys()),
        "rendered {:?}, {what} {:?}",
        rendered.keys(),
        other.keys()
    );
    for (key, object) in &rendered {
        assert_eq!(object, &other[key], "{key}: rendered (left), {what} (right)");
    }
}

fn metadata(object: &mut Value) -> Result<&mut serde_json::Map<String, Value>> {
    object["metadata"].as_object_mut().context("an object without metadata")
}

fn key(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} {}", text(&object["kind"]), text(&object["metadata"]["name"]))
}
