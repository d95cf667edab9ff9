//! Rosey Monitor: one resource says how a chat bot is watched; an operator turns it into the objects of a Prometheus stack.
//!
//! The map of the house. Data flows one way, and imports point the other:
//!
//! ```text
//! bin ─► operator, cli ─► cluster ─► plan ─► api, catalogue, monitoring, sidecar
//! bin ─► exporter ─► sidecar, catalogue::metrics
//! ```

pub mod catalogue;
pub mod sidecar;

#[cfg(feature = "kubernetes")]
pub mod api;
#[cfg(feature = "kubernetes")]
pub mod cluster;
#[cfg(feature = "kubernetes")]
pub mod monitoring;
#[cfg(feature = "kubernetes")]
pub mod plan;

#[cfg(feature = "cli")]
pub mod cli;
#[cfg(feature = "operator")]
pub mod operator;

#[cfg(feature = "exporter")]
pub mod exporter;
#[cfg(feature = "fake-bot")]
pub mod fake_bot;
