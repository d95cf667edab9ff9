//! The real control plane and Prometheus stack as plain processes on loopback, for tests and the demo.
//!
//! No Docker, no root: etcd, kube-apiserver, kube-controller-manager, prometheus-operator, Prometheus and Alertmanager are the
//! real commands (`make tools`); a small node agent plays kubelet and runs containers as local processes. `README.md` beside
//! this crate shows the API by example.

mod address;
mod alertmanager;
mod audit;
mod calls;
mod control_plane;
mod lab;
mod manifest;
mod node;
mod process;
mod prometheus;
mod proxy;
mod quantiles;
mod receivers;
pub mod rights;
pub mod rosey;
mod stack;
mod tasks;
mod tools;
mod wait;
mod web;

pub use address::free_port;
pub use alertmanager::{Alertmanager, HeldAlert, HeldStatus, Receiver};
pub use audit::{Audit, Mark, ObjectRef, Request, ResponseStatus, User};
pub use calls::Calls;
pub use control_plane::AuditLevel;
pub use lab::{Builder, Lab};
pub use manifest::{Manifests, condition, has_condition};
pub use node::NODE_NAME;
pub use node::image::Image;
pub use process::{Process, Signal, Supervisor};
pub use prometheus::{Alert, Labels, Prometheus, Rule, Sample, Target};
pub use proxy::Proxy;
pub use quantiles::Quantiles;
pub use receivers::message::{Attachment, DiscordMessage, Embed, Mail, SlackMessage, WebhookAlert, WebhookMessage};
pub use receivers::{Inbox, Notification};
pub use stack::{MONITORING_NAMESPACE, MatcherStrategy};
pub use tools::Tools;
pub use wait::{PATIENCE, eventually, until};
pub use web::{WebSecret, scraped_by_tls};

pub(crate) use tasks::Tasks;

/// 64 random bits; the standard library seeds its hash maps with them.
pub(crate) fn random_hex() -> String {
    use std::hash::{BuildHasher, Hasher};
    format!("{:016x}", std::hash::RandomState::new().build_hasher().finish())
}
