//! One turn of a monitor: its pods are read, changed, evicted, marked.

use json_patch::Patch as Operations;
use k8s_openapi::api::core::v1::Pod as FullPod;
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, EvictParams, Patch, PatchParams, Preconditions};
use kube::core::ApiResource;
use serde_json::{Value, json};
use tracing::info;

use crate::api::UNREPAIRED_ANNOTATION;
use crate::cluster::client::{RequestError, answered, is_other_object};
use crate::operator::FIELD_MANAGER;
use crate::operator::controller::Context;
use crate::operator::key::Key;
use crate::operator::leader::NotLeader;
use crate::operator::sidecars::Selected;
use crate::plan::Platform;
use crate::plan::injection::update::{Change, replacement};

/// One turn of a monitor.
pub struct Turn<'a> {
    /// The monitor, which may be gone by now.
    pub key: Key,
    pub platform: &'a Platform,
    pub context: &'a Context,
}

/// What became of a pod's exporter.
pub enum Changed {
    Done,
    /// There was nothing to do.
    Nothing,
    /// It stays as it is, for this reason.
    Left(String),
    /// There is no such pod any more.
    Gone,
}

/// What became of a pod.
pub enum Evicted {
    Done,
    /// It stays: a new one would not have an exporter either, for this reason.
    Left(String),
    /// There is no such pod any more.
    Gone,
}

/// Why a pod is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    #[error("the operator lacks the rights of ClusterRole rosey-operator-sidecars")]
    Rights,
    #[error("the pod could not be read: {0}")]
    Read(RequestError),
    #[error("{0}")]
    Write(RequestError),
    #[error("the pod could not be read: {0}")]
    Json(#[from] serde_json::Error),
}

impl Error {
    fn read(error: RequestError) -> Self {
        match status(&error) {
            Some(403) => Self::Rights,
            _ => Self::Read(error),
        }
    }

    /// Whether it is no use to try again before the operator has got more rights.
    pub fn lacks_rights(&self) -> bool {
        matches!(self, Self::Rights)
    }

    /// Whether it is no use to try again: the API server does not want this pod as it would be.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Write(error) if matches!(status(error), Some(400 | 403 | 422)))
    }

    /// Whether a disruption budget does not allow it now.
    pub fn is_for_now(&self) -> bool {
        matches!(self, Self::Write(error) if status(error) == Some(429))
    }
}

fn status(error: &RequestError) -> Option<u16> {
    match error {
        RequestError::Refused(error) => match &**error {
            kube::Error::Api(status) => Some(status.code),
            _ => None,
        },
        RequestError::Timeout => None,
    }
}

fn is_gone(error: &RequestError) -> bool {
    let other = |error: &kube::Error| is_other_object(error);
    status(error) == Some(404) || matches!(error, RequestError::Refused(error) if other(error))
}

impl Turn<'_> {
    fn api(&self) -> Api<DynamicObject> {
        let kind = ApiResource::erase::<FullPod>(&());
        Api::namespaced_with(self.context.client.clone(), &self.key.namespace, &kind)
    }

    /// The pod as the API server has it; nothing if that is another one, or goes.
    async fn read(&self, pod: &Selected) -> Result<Option<Value>, Error> {
        let live = answered(self.api().get_opt(pod.name())).await.map_err(Error::read)?;
        let same = |live: &DynamicObject| {
            live.metadata.uid.as_deref() == Some(pod.uid()) && live.metadata.deletion_timestamp.is_none()
        };
        Ok(live.filter(same).map(serde_json::to_value).transpose()?)
    }

    /// Reads a pod and changes it as planned.
    pub async fn change(&self, pod: &Selected, plan: impl FnOnce(&Value) -> Change) -> Result<Changed, Error> {
        let Some(live) = self.read(pod).await? else {
            return Ok(Changed::Gone);
        };
        let operations = match plan(&live) {
            Change::Nothing => return Ok(Changed::Nothing),
            Change::Left(why) => return Ok(Changed::Left(why)),
            Change::Patch(operations) => operations,
        };
        let operations: Operations = serde_json::from_value(Value::Array(operations))?;
        self.write(pod, &Patch::Json::<()>(operations)).await.map(
            |done| {
                if done { Changed::Done } else { Changed::Gone }
            },
        )
    }

    /// Says on a pod that it came without an exporter in place of another one.
    pub async fn mark(&self, pod: &Selected) -> Result<(), Error> {
        let annotation = json!({ UNREPAIRED_ANNOTATION: "this pod came without an exporter in place of one that was evicted for its lack" });
        let patch = json!({ "metadata": { "uid": pod.uid(), "annotations": annotation } });
        self.write(pod, &Patch::Merge(patch)).await.map(drop)
    }

    /// Answers whether the pod is still there.
    async fn write(
        &self,
        pod: &Selected,
        patch: &Patch<impl serde::Serialize + std::fmt::Debug>,
    ) -> Result<bool, Error> {
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        self.context.leadership.check()?;
        match answered(self.api().patch(pod.name(), &parameters, patch)).await {
            Ok(_) => {
                info!(monitor = %self.key, pod = pod.name(), "changed a pod");
                Ok(true)
            }
            Err(error) if is_gone(&error) => Ok(false),
            Err(error) => Err(Error::Write(error)),
        }
    }

    /// Evicts a pod, if a new one in its place would have an exporter.
    pub async fn evict(&self, pod: &Selected) -> Result<Evicted, Error> {
        let Some(live) = self.read(pod).await? else {
            return Ok(Evicted::Gone);
        };
        let monitors = self.context.monitors.all_in(&self.key.namespace);
        if let Err(why) = replacement(&live, monitors.iter().map(|monitor| &**monitor), self.platform) {
            return Ok(Evicted::Left(why));
        }
        let preconditions = Preconditions {
            uid: Some(pod.uid().to_owned()),
            resource_version: None,
        };
        let parameters = EvictParams {
            delete_options: Some(DeleteParams::default().preconditions(preconditions)),
            ..EvictParams::default()
        };
        let api: Api<FullPod> = Api::namespaced(self.context.client.clone(), &self.key.namespace);
        self.context.leadership.check()?;
        match answered(api.evict(pod.name(), &parameters)).await {
            Ok(_) => {
                info!(monitor = %self.key, pod = pod.name(), "evicted a pod without an exporter");
                Ok(Evicted::Done)
            }
            Err(error) if is_gone(&error) => Ok(Evicted::Gone),
            Err(error) => Err(Error::Write(error)),
        }
    }
}
