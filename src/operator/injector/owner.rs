//! The chart's `ClusterRole`, which owns what the injector makes, so that it goes when the chart goes.

use std::sync::atomic::{AtomicBool, Ordering};

use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Api, Client};
use tracing::info;

use crate::cluster::client::{RequestError, answered};

#[derive(Debug, thiserror::Error)]
pub(super) enum OwnerError {
    #[error("ClusterRole {0} is gone; nothing is made until it is back")]
    Gone(String),
    #[error("the ClusterRole that owns what the injector makes can't be read: {0}")]
    Api(#[from] RequestError),
}

pub(super) struct Owner {
    roles: Api<ClusterRole>,
    name: String,
    seen: AtomicBool,
    missed: AtomicBool,
}

impl Owner {
    pub fn new(client: Client, name: String) -> Self {
        Self {
            roles: Api::all(client),
            name,
            seen: AtomicBool::new(false),
            missed: AtomicBool::new(false),
        }
    }

    /// A reference with the uid of this moment: the garbage collector silently removes what names an old one. `None` where
    /// there is no such `ClusterRole`, as outside a cluster.
    ///
    /// # Errors
    /// The API server can't be asked, or the `ClusterRole` was there once and is gone: the chart is being uninstalled, and
    /// what is made now would stay behind.
    pub async fn reference(&self) -> Result<Option<OwnerReference>, OwnerError> {
        let role = answered(self.roles.get_metadata_opt(&self.name)).await?;
        let uid = role
            .map(|role| role.metadata)
            .filter(|meta| meta.deletion_timestamp.is_none())
            .and_then(|meta| meta.uid);
        let missed = self.missed.swap(uid.is_none(), Ordering::Relaxed);
        let Some(uid) = uid else {
            if self.seen.load(Ordering::Relaxed) {
                return Err(OwnerError::Gone(self.name.clone()));
            }
            if !missed {
                info!(
                    cluster_role = self.name,
                    "there is no such ClusterRole: the webhook registrations get no owner"
                );
            }
            return Ok(None);
        };
        self.seen.store(true, Ordering::Relaxed);
        Ok(Some(OwnerReference {
            api_version: "rbac.authorization.k8s.io/v1".into(),
            kind: "ClusterRole".into(),
            name: self.name.clone(),
            uid,
            ..OwnerReference::default()
        }))
    }
}
