//! `kubectl rosey record`: counts deployments and rollbacks in a monitor's status, from where the operator exports them.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use super::cluster::{Cluster, api_error};
use super::{Error, Verdict, print};
use crate::api::RoseyMonitor;
use crate::api::status::{Deployments, Durations};
use crate::catalogue::metrics::{DURATION_BUCKETS, LONGEST_DEPLOYMENT};

const FIELD_MANAGER: &str = "kubectl-rosey";
const RIGHT: &str = "patch roseymonitors/status in this namespace";
/// Pipelines that end at the same moment write one after the other.
const ATTEMPTS: u32 = 12;

/// Record a deployment or a rollback of a bot on its monitor.
///
/// Needs the right to patch roseymonitors/status, and no other.
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 done; 1 refused or failed; 2 wrong usage.")]
pub(super) struct Record {
    #[command(subcommand)]
    event: Event,
}

#[derive(Debug, Subcommand)]
enum Event {
    /// Record a deployment that succeeded or failed.
    #[command(after_help = "Examples:
  kubectl rosey record deployment rosey -n bots --status success --duration 42s
  kubectl rosey record deployment rosey --status failed --duration $(($(date +%s) - START))

Exit codes: 0 done; 1 refused or failed; 2 wrong usage.")]
    Deployment {
        #[command(flatten)]
        what: What,
        /// How it ended.
        #[arg(long, value_enum)]
        status: Status,
    },
    /// Record a rollback.
    #[command(after_help = "Examples:
  kubectl rosey record rollback rosey -n bots --duration 1m30s

Exit codes: 0 done; 1 refused or failed; 2 wrong usage.")]
    Rollback {
        #[command(flatten)]
        what: What,
    },
}

#[derive(Debug, Args)]
struct What {
    /// Name of the monitor.
    monitor: String,
    /// How long it took: seconds, or hours, minutes and seconds such as 42s, 2m30s or 1.5s.
    #[arg(long, value_parser = duration)]
    duration: SignedDuration,
    #[command(flatten)]
    cluster: Cluster,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Status {
    Success,
    Failed,
}

fn duration(text: &str) -> Result<SignedDuration, String> {
    let seconds = text
        .bytes()
        .all(|b| b.is_ascii_digit() || b == b'.')
        .then(|| format!("{text}s"));
    let length: SignedDuration = seconds
        .as_deref()
        .unwrap_or(text)
        .parse()
        .map_err(|_| "write seconds, or hours, minutes and seconds such as 42s, 2m30s or 1.5s".to_owned())?;
    if length.is_negative() || length.unsigned_abs() > LONGEST_DEPLOYMENT {
        return Err(format!(
            "must be from 0s to {} hours",
            LONGEST_DEPLOYMENT.as_secs() / 3600
        ));
    }
    Ok(length)
}

impl Record {
    pub(super) async fn run(&self) -> Result<Verdict, Error> {
        let (what, status) = match &self.event {
            Event::Deployment { what, status } => (what, Some(*status)),
            Event::Rollback { what } => (what, None),
        };
        let (client, namespace) = what.cluster.connect().await?;
        let api: Api<RoseyMonitor> = Api::namespaced(client, &namespace);
        let subject = format!("roseymonitor {namespace}/{}", what.monitor);
        let counts = write(&api, &what.monitor, &subject, |counts| {
            add(counts, status, what.duration);
        })
        .await?;
        print(&format!(
            "{subject}: {} recorded; {} succeeded, {} failed, {} rolled back so far\n",
            if status.is_some() { "deployment" } else { "rollback" },
            counts.succeeded,
            counts.failed,
            counts.rollbacks
        ))
    }
}

async fn write(
    api: &Api<RoseyMonitor>,
    name: &str,
    subject: &str,
    change: impl Fn(&mut Deployments),
) -> Result<Deployments, Error> {
    let params = PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    };
    let failed = |error| api_error(subject, RIGHT, &error);
    for attempt in 0..ATTEMPTS {
        // An empty patch answers with the object as it is, and needs no right to read.
        let current = api
            .patch_status(name, &params, &Patch::Merge(json!({})))
            .await
            .map_err(failed)?;
        let mut counts = current.status.and_then(|status| status.deployments).unwrap_or_default();
        change(&mut counts);
        let patch = json!({
            "metadata": {"resourceVersion": current.metadata.resource_version},
            "status": {"deployments": counts},
        });
        match api.patch_status(name, &params, &Patch::Merge(patch)).await {
            Ok(_) => return Ok(counts),
            Err(kube::Error::Api(status)) if status.is_conflict() => {
                // Two that collide must not collide again; the process id tells them apart.
                let spread = u64::from(std::process::id() % 50);
                tokio::time::sleep(Duration::from_millis(20 * u64::from(attempt) + spread)).await;
            }
            Err(error) => return Err(failed(error)),
        }
    }
    Err(Error::Api {
        what: subject.into(),
        reason: format!("changed by others {ATTEMPTS} times in a row; try again"),
    })
}

fn add(counts: &mut Deployments, status: Option<Status>, length: SignedDuration) {
    let now = || Some(Time(Timestamp::now()));
    let (count, durations) = match status {
        Some(Status::Success) => {
            counts.last_success = now();
            (&mut counts.succeeded, &mut counts.durations)
        }
        Some(Status::Failed) => {
            counts.last_failure = now();
            (&mut counts.failed, &mut counts.durations)
        }
        None => (&mut counts.rollbacks, &mut counts.rollback_durations),
    };
    *count = count.saturating_add(1);
    observe(durations.get_or_insert_default(), length);
}

fn observe(histogram: &mut Durations, length: SignedDuration) {
    if histogram.buckets.len() != DURATION_BUCKETS.len() {
        // Counted with other bounds: begin anew, as a counter does when its process restarts.
        *histogram = Durations {
            buckets: vec![0; DURATION_BUCKETS.len()],
            ..Durations::default()
        };
    }
    let seconds = length.as_secs_f64();
    for (count, bound) in histogram.buckets.iter_mut().zip(DURATION_BUCKETS) {
        *count = count.saturating_add(i64::from(seconds <= bound));
    }
    let milliseconds = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
    histogram.sum_milliseconds = histogram.sum_milliseconds.saturating_add(milliseconds);
    histogram.count = histogram.count.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_seconds_or_have_units() {
        for (text, milliseconds) in [
            ("42", 42_000),
            ("42s", 42_000),
            ("2m30s", 150_000),
            ("1.5s", 1_500),
            ("1.5", 1_500),
            ("1h", 3_600_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text).map(|d| d.as_millis()), Ok(milliseconds), "{text}");
        }
        for text in ["", "-5s", "soon", "241h", "1.2.3", "5 parsecs"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn buckets_are_cumulative_and_begin_anew_when_the_bounds_changed() {
        let mut counts = Deployments::default();
        add(&mut counts, Some(Status::Success), duration("42s").unwrap());
        add(&mut counts, Some(Status::Failed), duration("2h").unwrap());
        add(&mut counts, None, duration("5s").unwrap());
        let durations = counts.durations.as_mut().unwrap();
        assert_eq!(durations.buckets, [0, 0, 0, 1, 1, 1, 1, 1, 1]);
        assert_eq!((durations.sum_milliseconds, durations.count), (7_242_000, 2));
        durations.buckets.pop();
        add(&mut counts, Some(Status::Success), duration("1s").unwrap());
        assert_eq!(counts.durations.as_ref().unwrap().buckets, [1; 9]);
        assert_eq!(counts.rollback_durations.unwrap().buckets, [1; 9]);
        assert_eq!((counts.succeeded, counts.failed, counts.rollbacks), (2, 1, 1));
    }
}
