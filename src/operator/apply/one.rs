//! One object on its way into the cluster.

use std::hash::{DefaultHasher, Hasher};

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, PatchOperation, ReplaceOperation};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::{Value, json};
use tracing::warn;

use super::{Applier, Error, conflict, kind_name, request};
use crate::api::RoseyMonitor;
use crate::operator::FIELD_MANAGER;
use crate::operator::compare::{compare, was_ours};
use crate::operator::key::Key;
use crate::operator::owned::{Standing, Written, parse_version};
use crate::plan::{Kind, Object};

/// One object on its way into the cluster.
pub struct One<'a> {
    applier: &'a Applier<'a>,
    monitor: &'a RoseyMonitor,
    key: Key,
    object: &'a Object,
    desired: Value,
    hash: u64,
}

impl<'a> One<'a> {
    pub fn new(applier: &'a Applier<'a>, monitor: &'a RoseyMonitor, object: &'a Object) -> Self {
        let desired = with_owner(object, monitor);
        Self {
            applier,
            monitor,
            key: Key::of(monitor),
            object,
            hash: hash(&desired),
            desired,
        }
    }

    /// Brings the object into the cluster.
    pub async fn place(&self) -> Result<(), Error> {
        let (kind, name) = (self.object.kind, &self.object.name);
        let owned = self.applier.owned;
        match owned.standing(&self.key, self.owner(), kind, name, self.hash) {
            Standing::Settled => return Ok(()),
            Standing::Ours { uid, version } => match self.overwrite(&uid, &version.to_string()).await {
                // Gone, recreated or edited while nobody was looking: decide by what is there now.
                Err(error) if conflict(&error) => {}
                written => return written,
            },
            // What is somebody else's is never seen here: at rest it costs a read, and no write that is refused.
            Standing::Unseen if !self.applier.again => match self.create().await {
                Err(error) if conflict(&error) => {}
                created => return created,
            },
            Standing::Unseen | Standing::Unknown => {}
        }
        // An object may come or go between read and write; whoever does that all the time can wait for the next round.
        for _ in 0..2 {
            match self.settle().await {
                Err(error) if conflict(&error) => {}
                settled => return settled,
            }
        }
        self.settle().await
    }

    fn owner(&self) -> &str {
        self.monitor.metadata.uid.as_deref().unwrap_or_default()
    }

    fn api(&self) -> Api<DynamicObject> {
        self.applier.api(&self.key.namespace, self.object.kind)
    }

    /// Reads the object and does what it needs.
    async fn settle(&self) -> Result<(), Error> {
        let (kind, name) = (self.object.kind, &self.object.name);
        let Some(live) = request(kind, name, "read", self.api().get_opt(name)).await? else {
            return self.create().await;
        };
        match belongs(&live, self.monitor) {
            Belongs::Us => {}
            Belongs::Predecessor => {
                return Err(Error::Leaving {
                    kind,
                    name: name.clone(),
                });
            }
            Belongs::Others => {
                return Err(Error::NameTaken {
                    kind,
                    name: name.clone(),
                });
            }
        }
        let difference = compare(&self.desired, &live);
        if !difference.differs {
            self.remember(&live);
            return Ok(());
        }
        self.overwrite(
            &live.uid().unwrap_or_default(),
            &live.resource_version().unwrap_or_default(),
        )
        .await?;
        if !difference.strays {
            return Ok(());
        }
        let swept = self.sweep().await;
        if swept.is_err() {
            // What somebody added may be there still: the next round has to read.
            self.applier.owned.forget(&self.key, kind, name);
        }
        swept
    }

    /// Applies an object that must not exist yet: a version that no object has makes the API server refuse any other case,
    /// so that an object of the same name which somebody creates right now stays untouched.
    async fn create(&self) -> Result<(), Error> {
        let mut desired = self.desired.clone();
        desired["metadata"]["resourceVersion"] = json!("1");
        self.write(&desired, PatchParams::apply(FIELD_MANAGER)).await
    }

    /// Applies over an object of ours, which has this uid and this version. An edit that came in between is refused as a conflict:
    /// its event would be older than our write, and what it has added would stay.
    async fn overwrite(&self, uid: &str, version: &str) -> Result<(), Error> {
        let mut desired = self.desired.clone();
        desired["metadata"]["uid"] = json!(uid);
        desired["metadata"]["resourceVersion"] = json!(version);
        self.write(&desired, PatchParams::apply(FIELD_MANAGER).force()).await
    }

    async fn write(&self, desired: &Value, parameters: PatchParams) -> Result<(), Error> {
        let (kind, name) = (self.object.kind, &self.object.name);
        let (api, patch) = (self.api(), Patch::Apply(desired));
        self.applier.leadership.check()?;
        let written = request(kind, name, "applied", api.patch_metadata(name, &parameters, &patch)).await?;
        self.applier.metrics.wrote(kind, "apply");
        self.remember(&written);
        Ok(())
    }

    /// Removes what somebody put into `spec` or `data` beside ours, which an apply leaves in place.
    async fn sweep(&self) -> Result<(), Error> {
        let (kind, name) = (self.object.kind, &self.object.name);
        let Some(live) = request(kind, name, "read", self.api().get_opt(name)).await? else {
            return Ok(());
        };
        if !compare(&self.desired, &live).strays {
            self.remember_unless_edited(&live, &live);
            return Ok(());
        }
        let part = if kind == Kind::ConfigMap { "data" } else { "spec" };
        let operations = vec![
            // Refused as a conflict if somebody has written since.
            PatchOperation::Add(AddOperation {
                path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
                value: json!(live.resource_version()),
            }),
            PatchOperation::Replace(ReplaceOperation {
                path: PointerBuf::from_tokens([part]),
                value: self.desired[part].clone(),
            }),
        ];
        let (api, patch) = (self.api(), Patch::Json::<()>(json_patch::Patch(operations)));
        let parameters = PatchParams {
            field_manager: Some(FIELD_MANAGER.into()),
            ..PatchParams::default()
        };
        self.applier.leadership.check()?;
        let written = request(kind, name, "cleaned", api.patch_metadata(name, &parameters, &patch)).await?;
        self.applier.metrics.wrote(kind, "patch");
        warn!(kind = kind_name(kind), %name, "removed what somebody had added to it");
        let mut cleaned = live;
        cleaned.data[part] = self.desired[part].clone();
        self.remember_unless_edited(&cleaned, &written);
        Ok(())
    }

    /// Remembers a write that left the object as `left`. Somebody may have edited something else of it since our apply, and the watch
    /// may have told so already: then the next round has to read.
    fn remember_unless_edited(&self, left: &DynamicObject, written: &impl ResourceExt) {
        if compare(&self.desired, left).differs {
            self.applier
                .owned
                .forget(&self.key, self.object.kind, &self.object.name);
        } else {
            self.remember(written);
        }
    }

    fn remember(&self, object: &impl ResourceExt) {
        let written = Written {
            uid: object.uid().unwrap_or_default().into(),
            version: parse_version(object.resource_version().as_deref()),
            hash: self.hash,
        };
        self.applier
            .owned
            .record(&self.key, self.owner(), self.object.kind, &self.object.name, written);
    }
}

/// To whom an object belongs that has the name of one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Belongs {
    Us,
    /// A monitor of the same name that has been deleted.
    Predecessor,
    Others,
}

fn belongs(live: &DynamicObject, monitor: &RoseyMonitor) -> Belongs {
    let controller = live
        .metadata
        .owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true));
    let ours = |name: &String, kind: &str| kind == "RoseyMonitor" && Some(name) == monitor.metadata.name.as_ref();
    match controller {
        Some(owner) if Some(&owner.uid) == monitor.metadata.uid.as_ref() => Belongs::Us,
        Some(owner) if ours(&owner.name, &owner.kind) => Belongs::Predecessor,
        // Stripped of its owner, or orphaned with an earlier monitor: the managed fields still say who made it.
        None if was_ours(live) => Belongs::Us,
        _ => Belongs::Others,
    }
}

fn with_owner(object: &Object, monitor: &RoseyMonitor) -> Value {
    let mut desired = object.json.clone();
    if let Some(owner) = monitor.controller_owner_ref(&()) {
        desired["metadata"]["ownerReferences"] = json!([owner]);
    }
    desired
}

fn hash(value: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(value.to_string().as_bytes());
    hasher.finish()
}
