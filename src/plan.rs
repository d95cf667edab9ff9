//! From a monitor to the objects that watch its bot: pure, the same for operator, command line and tests.

pub mod injection;
pub mod object;
pub mod platform;
pub mod problem;

use crate::api::RoseyMonitor;
use crate::api::status::Skipped;

pub use object::{Kind, Object};
pub use platform::Platform;
pub use problem::{Problem, Problems};

/// Everything that is made for one monitor.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The objects, in the order in which they are applied.
    pub objects: Vec<Object>,
    /// What is worth saying about them.
    pub report: Report,
}

/// What is worth saying about a plan.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// Alerting rules in force.
    pub alerts: i32,
    /// Groups they stand in.
    pub groups: i32,
    /// Alerts of the chosen packs that are left out, with the reason.
    pub skipped: Vec<Skipped>,
    /// What is legal but odd, such as a severity that no route takes; one line each.
    pub warnings: Vec<String>,
}

/// Makes the plan of a monitor.
///
/// # Errors
/// Everything that is wrong with the monitor, in the order of its fields.
pub fn plan(monitor: &RoseyMonitor, platform: &Platform) -> Result<Plan, Problems> {
    let _ = (monitor, platform);
    Ok(Plan { objects: Vec::new(), report: Report::default() })
}
