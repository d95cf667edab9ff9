//! The resource as users write it: `RoseyMonitor`, its defaults, and what the schema refuses.
//!
//! The custom resource definition is generated from these types ([`crd`]). Defaults that never change stand in the schema;
//! what follows a release (image, resources, thresholds) is the plan's. Nothing here behaves.

pub mod alerts;
pub mod exporter;
pub mod forms;
pub mod monitor;
pub mod notifications;
pub mod quantities;
pub mod references;
pub mod schema;
pub mod scrape;
pub mod status;

mod definition;

pub use definition::crd;
pub use monitor::{RoseyMonitor, RoseyMonitorSpec};
pub use quantities::{Duration, Threshold};

/// API group of the resource.
pub const GROUP: &str = "rosey.dev";
/// Label on everything that is made for a monitor; its value is the monitor's name.
pub const MONITOR_LABEL: &str = "rosey.dev/monitor";
/// Annotation on a pod that carries an exporter: `<monitor>@<hash of the container>`.
pub const INJECTED_ANNOTATION: &str = "rosey.dev/injected";
/// Annotation on a pod whose exporter was given no web configuration: it speaks plain HTTP, whatever its monitor says by now. Its
/// value is `http`.
pub const SCHEME_ANNOTATION: &str = "rosey.dev/scheme";
/// Annotation on a pod that carries no exporter, with the reason.
pub const SKIPPED_ANNOTATION: &str = "rosey.dev/skipped";
/// Annotation or label by which a pod's owner opts out: `rosey.dev/inject: "false"`.
pub const INJECT_ANNOTATION: &str = "rosey.dev/inject";
/// Annotation on a pod whose exporter's image was changed in place: from which to which, and how that ended, as JSON.
pub const UPDATE_ANNOTATION: &str = "rosey.dev/update";
/// Annotation on a pod that came without an exporter in place of one that was evicted for its lack.
pub const UNREPAIRED_ANNOTATION: &str = "rosey.dev/unrepaired";
/// The longest name of a monitor, a channel or a route: they become label values and prefixes of names.
pub const MAX_NAME: usize = 40;
