//! Which replica writes: the one that holds the Lease.
//!
//! Every change of the Lease is a replace of the version that was read, so two replicas can't both succeed. Whether the Lease
//! of another replica has expired is judged by how long it has not changed on our own monotonic clock: the clocks of two
//! nodes may disagree. A leader stops writing some seconds before others may take over, and [`Leadership::check`] asks the clock
//! before every single write, because a process that was stopped does not know it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// This replica does not lead, or no longer for sure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this replica does not lead")]
pub struct NotLeader;

/// Whether this replica leads.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// Milliseconds since `epoch()` up to which nobody else can lead.
    until: Arc<AtomicU64>,
    leads: watch::Sender<bool>,
}

impl Default for Leadership {
    fn default() -> Self {
        Self {
            until: Arc::default(),
            leads: watch::Sender::new(false),
        }
    }
}

impl Leadership {
    /// Follows who leads.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// Asked right before each write.
    ///
    /// # Errors
    /// Another replica may lead by now.
    pub fn check(&self) -> Result<(), NotLeader> {
        let now = milliseconds(Instant::now());
        if now < self.until.load(Ordering::Acquire) {
            Ok(())
        } else {
            Err(NotLeader)
        }
    }

    /// A leadership that does not change.
    #[cfg(test)]
    pub fn fixed(leads: bool) -> Self {
        let leadership = Self::default();
        if leads {
            leadership.extend(Instant::now() + Duration::from_secs(3600));
        }
        leadership
    }

    fn extend(&self, until: Instant) {
        self.until.store(milliseconds(until), Ordering::Release);
        self.leads.send_if_modified(|leads| !std::mem::replace(leads, true));
    }

    fn end(&self) {
        self.until.store(0, Ordering::Release);
        self.leads.send_if_modified(|leads| std::mem::replace(leads, false));
    }
}

fn milliseconds(instant: Instant) -> u64 {
    static EPOCH: OnceLock<Instant> = OnceLock::new();
    // The epoch lies before the first instant, so that instant 0 is "never".
    let epoch = *EPOCH.get_or_init(Instant::now);
    u64::try_from(instant.saturating_duration_since(epoch).as_millis())
        .unwrap_or(u64::MAX)
        .saturating_add(1)
}

/// How the Lease is held.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub name: String,
    /// This replica; no other one has this name.
    pub identity: String,
    /// How long a Lease lasts that is not renewed. Renewed after a seventh of it; given up after two thirds.
    pub duration: Duration,
}

impl Settings {
    fn retry(&self) -> Duration {
        self.duration / 7
    }

    fn deadline(&self) -> Duration {
        self.duration * 2 / 3
    }
}

/// Takes, renews and releases the Lease.
pub struct Elector {
    leases: Api<Lease>,
    settings: Settings,
    leadership: Leadership,
    /// The Lease as it was last seen, and since when it looks like this.
    seen: Option<(Lease, Instant)>,
}

impl Elector {
    /// An elector that reports to `leadership`.
    #[must_use]
    pub fn new(client: Client, settings: Settings, leadership: Leadership) -> Self {
        Self {
            leases: Api::namespaced(client, &settings.namespace),
            settings,
            leadership,
            seen: None,
        }
    }

    /// Stands for election until `release`; then the Lease is given back, if it is ours.
    pub async fn run(mut self, release: CancellationToken) {
        loop {
            if *self.leadership.leads.borrow() && self.leadership.check().is_err() {
                warn!("the lease was not renewed in time; this replica stops writing");
                self.leadership.end();
            }
            let started = Instant::now();
            let attempt = tokio::time::timeout(self.settings.deadline() / 2, self.attempt(started));
            match release.run_until_cancelled(attempt).await {
                None => break,
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => warn!(%error, "the lease could not be read or written"),
                Some(Err(_)) => warn!("the API server did not answer about the lease in time"),
            }
            if release
                .run_until_cancelled(tokio::time::sleep_until(started + self.settings.retry()))
                .await
                .is_none()
            {
                break;
            }
        }
        self.release().await;
    }

    async fn attempt(&mut self, started: Instant) -> Result<(), kube::Error> {
        let leads = self.leadership.check().is_ok();
        if !leads {
            self.look(started).await?;
        }
        let seen = self
            .seen
            .as_ref()
            .map(|(lease, since)| (lease, started.duration_since(*since)));
        if decide(seen, &self.settings.identity) == Step::Wait {
            return Ok(());
        }
        match self.write(Some(&self.settings.identity.clone())).await {
            Ok(()) => {
                if !leads {
                    info!(identity = self.settings.identity, "this replica leads");
                }
                self.leadership.extend(started + self.settings.deadline());
                Ok(())
            }
            Err(kube::Error::Api(status))
                if status.is_conflict() || status.is_already_exists() || status.is_not_found() =>
            {
                debug!(%status, "the lease is another one than it was");
                let looked = self.look(started).await;
                // Somebody else may have touched it, say to label it: who holds it decides.
                if looked.is_err() || !self.holds() {
                    self.leadership.end();
                }
                looked
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the Lease, as it was last seen, is ours.
    fn holds(&self) -> bool {
        let spec = self.seen.as_ref().and_then(|(lease, _)| lease.spec.as_ref());
        spec.and_then(|spec| spec.holder_identity.as_deref()) == Some(&self.settings.identity)
    }

    /// Reads the Lease. A version that was seen before keeps its age.
    async fn look(&mut self, now: Instant) -> Result<(), kube::Error> {
        let lease = self.leases.get_opt(&self.settings.name).await?;
        self.seen = lease.map(|lease| match self.seen.take() {
            Some((old, since)) if old.metadata.resource_version == lease.metadata.resource_version => (lease, since),
            _ => (lease, now),
        });
        Ok(())
    }

    /// Writes the Lease for `holder`, over the version that was seen.
    async fn write(&mut self, holder: Option<&str>) -> Result<(), kube::Error> {
        let now = MicroTime(k8s_openapi::jiff::Timestamp::now());
        let old = self.seen.as_ref().map(|(lease, _)| lease);
        let mut spec = old.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        if spec.holder_identity.as_deref() != holder {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions =
                Some(old.map_or(0, |_| spec.lease_transitions.unwrap_or_default().saturating_add(1)));
        }
        spec.holder_identity = holder.map(str::to_owned);
        spec.renew_time = Some(now);
        spec.lease_duration_seconds = Some(i32::try_from(self.settings.duration.as_secs()).unwrap_or(i32::MAX));
        let written = if let Some(old) = old {
            let lease = Lease {
                metadata: old.metadata.clone(),
                spec: Some(spec),
            };
            self.leases
                .replace(&self.settings.name, &PostParams::default(), &lease)
                .await?
        } else {
            let metadata = ObjectMeta {
                name: Some(self.settings.name.clone()),
                ..ObjectMeta::default()
            };
            self.leases
                .create(
                    &PostParams::default(),
                    &Lease {
                        metadata,
                        spec: Some(spec),
                    },
                )
                .await?
        };
        self.seen = Some((written, Instant::now()));
        Ok(())
    }

    async fn release(mut self) {
        let led = self.leadership.check().is_ok();
        self.leadership.end();
        if led {
            match tokio::time::timeout(Duration::from_secs(2), self.write(None)).await {
                Ok(Ok(())) => info!("the lease is released"),
                Ok(Err(error)) => {
                    warn!(%error, "the lease could not be released; another replica waits until it expires");
                }
                Err(_) => warn!("the lease could not be released in time; another replica waits until it expires"),
            }
        }
    }
}

/// What to do about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Write it with our name.
    Take,
    /// Another replica leads.
    Wait,
}

/// Decides from the Lease and how long it has not changed.
fn decide(seen: Option<(&Lease, Duration)>, identity: &str) -> Step {
    let Some((
        LeaseSpec {
            holder_identity: Some(holder),
            lease_duration_seconds,
            ..
        },
        unchanged,
    )) = seen.and_then(|(lease, unchanged)| lease.spec.as_ref().map(|spec| (spec, unchanged)))
    else {
        return Step::Take;
    };
    let lasts = Duration::from_secs(lease_duration_seconds.unwrap_or(15).max(1).unsigned_abs().into());
    if holder.is_empty() || holder == identity || unchanged >= lasts {
        Step::Take
    } else {
        Step::Wait
    }
}

#[cfg(test)]
mod tests;
