//! Manifests: YAML of any kinds, applied as `kubectl apply --server-side` does.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind, Status};
use kube::discovery::{Discovery, Scope};
use kube::{Client, ResourceExt};
use serde_json::Value;
use tokio::sync::Mutex;

use crate::wait;

/// Knows which kinds the API server serves, and asks again when it meets one that it does not know.
pub struct Manifests {
    client: Client,
    served: Mutex<Option<Discovery>>,
}

/// The documents of `source`: YAML text, or the path of a file with it.
pub(crate) fn read(source: &str) -> Result<Vec<Value>> {
    let text = if !source.contains('\n') && Path::new(source).exists() {
        std::fs::read_to_string(source).with_context(|| format!("read {source}"))?
    } else if !source.contains(':') {
        return Err(anyhow!(
            "{source}: no such file (seen from {})",
            std::env::current_dir()?.display()
        ));
    } else {
        source.to_owned()
    };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(&text).with_context(|| format!("parse this YAML:\n{text}"))?;
    let mut objects = Vec::new();
    for document in documents {
        match document {
            Value::Null => {}
            Value::Object(mut list) if list.get("kind").is_some_and(|kind| kind == "List") => {
                objects.extend(
                    list.get_mut("items")
                        .and_then(Value::as_array_mut)
                        .map(std::mem::take)
                        .unwrap_or_default(),
                );
            }
            document => objects.push(document),
        }
    }
    Ok(objects)
}

impl Manifests {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        Self {
            client,
            served: Mutex::new(None),
        }
    }

    /// Server-side apply of one object, with force, as `manager`. A definition of new kinds is waited for. An object without a
    /// namespace lands in `namespace`.
    ///
    /// # Errors
    /// When the API server refuses it, or does not serve its kind.
    pub async fn apply(&self, manager: &str, object: &Value, namespace: &str) -> Result<DynamicObject> {
        let (api, name) = self.api(object, namespace).await?;
        let params = PatchParams::apply(manager).force();
        let applied = api.patch(&name, &params, &Patch::Apply(object)).await?;
        if applied
            .types
            .as_ref()
            .is_some_and(|types| types.kind == "CustomResourceDefinition")
        {
            established(&api, &name).await?;
        }
        Ok(applied)
    }

    /// Creates the definitions in these files, named `<group>_<plural>.yaml`, and waits until they are served; what exists
    /// stays as it is.
    ///
    /// # Errors
    /// When the API server refuses one, or does not serve them in time.
    pub async fn define(&self, files: &[PathBuf]) -> Result<()> {
        futures::future::try_join_all(files.iter().map(|file| self.create_definition(file))).await?;
        let names = files
            .iter()
            .filter_map(|file| file.file_stem()?.to_str()?.split_once('_'));
        let mut missing: BTreeSet<(&str, &str)> = names.collect();
        // Discovery is small; the definitions themselves are half a megabyte each, too much to be asked for again and again.
        wait::until(wait::PATIENCE, "the new kinds to be served", async || {
            let groups: BTreeSet<&str> = missing.iter().map(|(group, _)| *group).collect();
            for name in groups {
                let group = kube::discovery::group(&self.client, name).await?;
                let served = group.versions().flat_map(|version| group.versioned_resources(version));
                let plurals: BTreeSet<String> = served.map(|(resource, _)| resource.plural).collect();
                missing.retain(|(group, plural)| *group != name || !plurals.contains(*plural));
            }
            Ok(missing.is_empty())
        })
        .await
    }

    /// The text goes to the API server as it is: reading these 4 MB of YAML here would take longer than all the rest.
    async fn create_definition(&self, file: &Path) -> Result<()> {
        let request =
            axum::http::Request::post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions?fieldManager=lab")
                .header("Content-Type", "application/yaml")
                .body(std::fs::read(file).with_context(|| format!("read {}", file.display()))?)?;
        match self.client.request_text(request).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).with_context(|| format!("create the definition in {}", file.display())),
        }
        Ok(())
    }

    /// Deletes an object, its dependents in the background; one that is not there is passed over.
    ///
    /// # Errors
    /// When the API server refuses.
    pub async fn delete(&self, object: &Value, namespace: &str) -> Result<()> {
        let (api, name) = self.api(object, namespace).await?;
        match api.delete(&name, &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if is_not_found(&status) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// An object of any kind, given as `apiVersion/Kind`; `None` if there is none.
    ///
    /// # Errors
    /// When the API server does not serve the kind or does not answer.
    pub async fn get(&self, kind: &str, namespace: &str, name: &str) -> Result<Option<DynamicObject>> {
        let (api_version, kind) = kind.rsplit_once('/').unwrap_or(("v1", kind));
        let (resource, scope) = self.resource(api_version, kind).await?;
        Ok(self.scoped(&resource, &scope, namespace).get_opt(name).await?)
    }

    /// Waits until an object exists and `accept` says yes to it.
    ///
    /// # Errors
    /// When it does not within `deadline`; the message has the object's labels and status as they were last.
    pub async fn until(
        &self,
        deadline: Duration,
        kind: &str,
        namespace: &str,
        name: &str,
        accept: impl Fn(&DynamicObject) -> bool,
    ) -> Result<DynamicObject> {
        let what = format!("{kind} {namespace}/{name} to be as wanted");
        wait::eventually(deadline, &what, async || {
            let object = self
                .get(kind, namespace, name)
                .await?
                .with_context(|| format!("{kind} {namespace}/{name} does not exist"))?;
            if !accept(&object) {
                let status = object.data.get("status").map(|status| format!(", status {status}"));
                bail!(
                    "{} has labels {:?}{}",
                    describe(&object),
                    object.labels(),
                    status.unwrap_or_default()
                );
            }
            Ok(Some(object))
        })
        .await
    }

    /// Waits until the object's status has condition `condition` True.
    ///
    /// # Errors
    /// As [`Manifests::until`].
    pub async fn until_condition(
        &self,
        deadline: Duration,
        kind: &str,
        namespace: &str,
        name: &str,
        condition: &str,
    ) -> Result<DynamicObject> {
        let accept = |object: &DynamicObject| has_condition(object, condition);
        self.until(deadline, kind, namespace, name, accept).await
    }

    async fn api(&self, object: &Value, namespace: &str) -> Result<(Api<DynamicObject>, String)> {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
        let api_version = text("/apiVersion").with_context(|| format!("no apiVersion in {object}"))?;
        let kind = text("/kind").with_context(|| format!("no kind in {object}"))?;
        let name = text("/metadata/name").with_context(|| format!("no metadata.name in {object}"))?;
        let (resource, scope) = self.resource(api_version, kind).await?;
        let namespace = text("/metadata/namespace").unwrap_or(namespace);
        Ok((self.scoped(&resource, &scope, namespace), name.to_owned()))
    }

    fn scoped(&self, resource: &ApiResource, scope: &Scope, namespace: &str) -> Api<DynamicObject> {
        match scope {
            Scope::Cluster => Api::all_with(self.client.clone(), resource),
            Scope::Namespaced => Api::namespaced_with(self.client.clone(), namespace, resource),
        }
    }

    async fn resource(&self, api_version: &str, kind: &str) -> Result<(ApiResource, Scope)> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let wanted = GroupVersionKind::gvk(group, version, kind);
        let mut served = self.served.lock().await;
        if let Some((resource, capabilities)) = served.as_ref().and_then(|served| served.resolve_gvk(&wanted)) {
            return Ok((resource, capabilities.scope));
        }
        // A definition is established a moment before discovery tells of it.
        wait::eventually(
            Duration::from_secs(10),
            &format!("the API server to serve {api_version} {kind}"),
            async || {
                let fresh = Discovery::new(self.client.clone()).run_aggregated().await?;
                let found = fresh
                    .resolve_gvk(&wanted)
                    .map(|(resource, capabilities)| (resource, capabilities.scope));
                *served = Some(fresh);
                Ok(found)
            },
        )
        .await
    }
}

async fn established(definitions: &Api<DynamicObject>, name: &str) -> Result<()> {
    let what = format!("definition {name} to be established");
    wait::until(wait::PATIENCE, &what, async || {
        Ok(has_condition(&definitions.get(name).await?, "Established"))
    })
    .await
}

fn is_not_found(status: &Status) -> bool {
    status.code == 404
}

/// True if the object's status has the condition `kind` with status True.
#[must_use]
pub fn has_condition(object: &DynamicObject, kind: &str) -> bool {
    condition(object, kind).is_some_and(|condition| condition["status"] == "True")
}

/// The condition `kind` of an object's status: type, status, reason, message, observedGeneration.
#[must_use]
pub fn condition<'a>(object: &'a DynamicObject, kind: &str) -> Option<&'a Value> {
    object
        .data
        .pointer("/status/conditions")?
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == kind)
}

/// The object's namespace and name, for messages.
pub(crate) fn describe(object: &DynamicObject) -> String {
    let kind = object.types.as_ref().map_or("object", |types| types.kind.as_str());
    format!(
        "{kind} {}/{}",
        object.namespace().unwrap_or_default(),
        object.name_any()
    )
}
