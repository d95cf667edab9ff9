//! What is known about bots, as data: every series and every alert. Exporter, rules, dashboards and docs read it here.

pub mod metrics;

#[cfg(feature = "kubernetes")]
pub mod alert;
#[cfg(feature = "kubernetes")]
mod bot;
#[cfg(feature = "kubernetes")]
mod deployments;
#[cfg(feature = "kubernetes")]
mod storage;

#[cfg(feature = "kubernetes")]
pub use alert::{Alert, Inhibition};

/// Every alert there is, pack by pack.
#[cfg(feature = "kubernetes")]
pub fn alerts() -> impl Iterator<Item = &'static Alert> {
    [bot::ALERTS, storage::ALERTS, deployments::ALERTS]
        .into_iter()
        .flatten()
}

/// Which alerts are silent while another one fires.
#[cfg(feature = "kubernetes")]
pub const INHIBITIONS: &[Inhibition] = bot::INHIBITIONS;
