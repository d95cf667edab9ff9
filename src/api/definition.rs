//! The custom resource definition, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

use super::RoseyMonitor;

/// The custom resource definition as it is installed.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    RoseyMonitor::crd()
}
