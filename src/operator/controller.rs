//! From a monitor that is due to a cluster that agrees with it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use futures::StreamExt;
use kube::Client;
use kube::runtime::controller::{Action, Config, applier};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::apply::{self, Applier};
use super::backoff::Backoff;
use super::events::Announcer;
use super::key::{Key, Queue};
use super::landscape::Landscape;
use super::last_good::LastGood;
use super::leader::Leadership;
use super::metrics::{Metrics, Outcome};
use super::monitors::Monitors;
use super::owned::Owned;
use super::refusals::Refusals;
use super::refused_pods::RefusedPods;
use super::selection::{Home, Selection, selection};
use super::sidecars::{Hindrance, Injecting, PODS_REFUSED, Pods, Sidecars};
use super::status::{self, Applied, Observation, Reports, Standing};
use super::upkeep::{self, Upkeep};
use crate::api::RoseyMonitor;
use crate::api::status::MonitorStatus;
use crate::api::status::condition::INJECTED;
use crate::plan::{Plan, Platform, Problems, plan};

mod error;

pub use error::{Error, Failed};

use error::retry;

/// A failure that the API server may take back shows in the status only when it has come so often in a row.
const PATIENT: u32 = 3;
/// The same while the garbage collector is awaited, which needs its time: about 30 s.
const PATIENT_WITH_LEAVING: u32 = 20;

/// Everything that a reconcile works with.
pub struct Context {
    /// Client of the API server.
    pub client: Client,
    /// Whether this replica writes.
    pub leadership: Leadership,
    /// The monitors.
    pub monitors: Monitors,
    /// Which of them are due.
    pub queue: Queue,
    /// Their objects.
    pub owned: Arc<Owned>,
    /// Their pods.
    pub pods: Pods,
    /// What stands around them.
    pub landscape: Landscape,
    /// What prometheus-operator refused.
    pub refusals: Refusals,
    /// What quotas and limit ranges refused.
    pub refused_pods: RefusedPods,
    /// What was said of them.
    pub reports: Reports,
    /// What the invalid ones were before.
    pub last_good: LastGood,
    /// Where pods get their exporter.
    pub injecting: Injecting,
    /// What is done to pods that run.
    pub upkeep: Upkeep,
    /// Their failures.
    pub backoff: Backoff,
    /// Their Events.
    pub announcer: Announcer,
    /// The operator's metrics.
    pub metrics: Arc<Metrics>,
}

impl Context {
    /// A monitor is there, which was `before`.
    pub fn arrived(&self, monitor: &RoseyMonitor, before: Option<&Arc<RoseyMonitor>>) {
        let key = Key::of(monitor);
        self.reports.shown(&key, monitor);
        let place = |monitor: &RoseyMonitor| (monitor.metadata.uid.clone(), monitor.metadata.generation);
        // Where no queue is open nobody would look at it: a new leader begins by looking at every monitor.
        if !self.queue.is_open() || before.is_some_and(|before| place(before) == place(monitor)) {
            return;
        }
        if let Some(before) = before.filter(|before| before.metadata.uid == monitor.metadata.uid) {
            self.last_good.changed(before);
        }
        self.pods.released(&key);
    }

    /// A monitor is gone.
    pub fn left(&self, key: &Key) {
        self.forget(key);
        self.pods.released(key);
    }

    fn forget(&self, key: &Key) {
        self.backoff.forget(key);
        self.reports.forget(key);
        self.last_good.forget(key);
        self.refusals.forget(key);
        self.metrics.planned(key, None);
        self.forget_pods(key);
    }

    /// Gives back the turn that a monitor has or waits for.
    fn forget_pods(&self, key: &Key) {
        if let Some(next) = self.upkeep.forget(key) {
            self.queue.push(&next);
        }
    }
}

/// Reconciles whenever this replica leads, until `shutdown`; what has begun by then is finished.
pub async fn run(context: Arc<Context>, concurrency: u16, shutdown: CancellationToken) {
    let mut leads = context.leadership.subscribe();
    loop {
        if shutdown
            .run_until_cancelled(leads.wait_for(|leads| *leads))
            .await
            .is_none_or(|leads| leads.is_err())
        {
            return;
        }
        let lost = async {
            let _ = leads.wait_for(|leads| !*leads).await;
        };
        tokio::select! {
            () = term(Arc::clone(&context), concurrency, shutdown.clone()) => return,
            () = lost => warn!("this replica leads no longer"),
        }
        context.queue.close();
        context.metrics.rest();
    }
}

/// One time as a leader: every monitor once, and then whichever becomes due.
async fn term(context: Arc<Context>, concurrency: u16, shutdown: CancellationToken) {
    let mut due = context.queue.open();
    context.owned.distrust();
    context.reports.clear();
    context.last_good.clear();
    context.upkeep.clear();
    for monitor in context.monitors.store().state() {
        context.queue.push(&Key::of(&monitor));
    }
    let queue = futures::stream::poll_fn(move |cx| due.poll_recv(cx)).map(|key| Ok::<_, Infallible>(key.reference()));
    let config = Config::default().concurrency(concurrency.max(1));
    let store = context.monitors.store();
    let applied = applier(
        tracked,
        retry,
        Arc::clone(&context),
        store,
        queue.take_until(shutdown.clone().cancelled_owned()),
        config,
    );
    let applied = applied.for_each(|result| async move {
        match result {
            Ok((monitor, _)) => debug!(%monitor, "reconciled"),
            Err(
                kube::runtime::controller::Error::ObjectNotFound(_)
                | kube::runtime::controller::Error::ReconcilerFailed(..),
            ) => {}
            Err(error) => error!(%error, "the controller failed"),
        }
    });
    tokio::join!(
        applied,
        upkeep::abandoned(&context, &shutdown),
        shutdown.run_until_cancelled(context.queue.pass_on()),
    );
}

type Reconciled = Pin<Box<dyn Future<Output = Result<Action, Failed>> + Send>>;

/// A reconcile with its time and its outcome.
fn tracked(monitor: Arc<RoseyMonitor>, context: Arc<Context>) -> Reconciled {
    Box::pin(async move {
        let started = Instant::now();
        let result = reconcile(&monitor, &context).await;
        let outcome = match &result {
            Ok(_) => Outcome::Success,
            Err(Failed { error, .. }) if error.is_late() => Outcome::Postponed(error.category()),
            Err(Failed { error, .. }) => Outcome::Error(error.category()),
        };
        context.metrics.reconciled(started.elapsed(), outcome);
        let key = Key::of(&monitor);
        if result.is_ok() {
            context.backoff.forget(&key);
        }
        if context.monitors.get(&key).is_none() {
            // It went meanwhile, and what was learnt of it came after it was forgotten.
            context.forget(&key);
        }
        result
    })
}

async fn reconcile(monitor: &RoseyMonitor, context: &Context) -> Result<Action, Failed> {
    let key = Key::of(monitor);
    if monitor.metadata.deletion_timestamp.is_some() {
        // A finalizer may keep it for long: others get its turn, and what is on trial is put back as that of no monitor.
        context.forget_pods(&key);
        return Ok(Action::await_change());
    }
    let platform = context.landscape.platform().borrow().clone();
    let plan = plan(monitor, &platform);
    let last = match plan {
        Ok(_) => {
            context.last_good.settled(&key, monitor);
            None
        }
        Err(_) => last_plan(monitor, &platform, context),
    };
    let applied = apply(monitor, &plan, context).await;
    let kept = match &last {
        Some(last) if matches!(applied, Applied::Invalid) => write(monitor, last, context).await,
        _ => Ok(()),
    };
    let now = k8s_openapi::jiff::Timestamp::now().as_second();
    let refused = &context.refused_pods;
    let refused = refused
        .of(&context.client, monitor, &platform, &context.pods, now)
        .await;
    let told = match &refused {
        Ok(told) => told.as_ref().map(|told| told.message.clone()),
        // Nothing new is known, and the rest has to be said all the same.
        Err(_) => still_refused(&context.reports.standing(monitor).status),
    };
    let mut hindrance = Hindrance {
        refused: told.as_deref(),
        off: context.injecting.off(&key.namespace),
        ..Hindrance::default()
    };
    let in_place = matches!(applied, Applied::Done);
    let upkeep = &context.upkeep;
    let done = upkeep.keep(monitor, &platform, hindrance, in_place, context).await;
    hindrance.remedies = done.remedies();
    let sidecars = context.pods.of(monitor, &platform, hindrance);
    let holds = refused.as_ref().ok().and_then(Option::as_ref).map(|told| told.holds);
    let again = holds.into_iter().chain(done.again).min();
    let ended = async {
        report(monitor, &plan, last.as_ref(), &applied, sidecars, context).await?;
        if let Applied::Failed(error) = applied {
            return Err(error.into());
        }
        kept?;
        refused?;
        Ok(())
    };
    match ended.await {
        Ok(()) => Ok(again.map_or_else(Action::await_change, Action::requeue)),
        // What was begun with the pods is gone on with, whatever the rest waits for.
        Err(error) => Err(Failed { error, again }),
    }
}

/// The plan by which the objects of an invalid monitor are kept as they were: that of its last valid spec, if this replica has
/// seen it.
fn last_plan(monitor: &RoseyMonitor, platform: &Platform, context: &Context) -> Option<Plan> {
    let key = Key::of(monitor);
    let last = context.last_good.of(&key, monitor)?;
    let Ok(plan) = plan(&last, platform) else {
        context.last_good.forget(&key);
        return None;
    };
    (!last.spec.paused).then_some(plan)
}

/// What was said of pods that are refused, if it was.
fn still_refused(before: &MonitorStatus) -> Option<String> {
    let mut conditions = before.conditions.iter();
    let said = conditions.find(|condition| condition.type_ == INJECTED && condition.reason == PODS_REFUSED);
    said.map(|condition| condition.message.clone())
}

/// Applies the plan, unless there is none or the monitor is paused.
async fn apply(monitor: &RoseyMonitor, plan: &Result<Plan, Problems>, context: &Context) -> Applied {
    let key = Key::of(monitor);
    let Ok(plan) = plan else {
        return if monitor.spec.paused {
            Applied::Paused
        } else {
            Applied::Invalid
        };
    };
    context.metrics.planned(&key, Some(plan));
    if monitor.spec.paused {
        return Applied::Paused;
    }
    match write(monitor, plan, context).await {
        Ok(()) => Applied::Done,
        Err(error) => Applied::Failed(error),
    }
}

/// Brings the objects of a plan into the cluster.
async fn write(monitor: &RoseyMonitor, plan: &Plan, context: &Context) -> Result<(), apply::Error> {
    let applier = Applier {
        client: &context.client,
        leadership: &context.leadership,
        owned: &context.owned,
        metrics: &context.metrics,
        again: context.backoff.failures(&Key::of(monitor)) > 0,
    };
    applier.apply(monitor, plan, &context.landscape.missing()).await
}

/// Whether a failure shows in the status after so many before it in a row.
fn tells(error: &apply::Error, failures: u32) -> bool {
    match error {
        apply::Error::NotLeader(_) => false,
        apply::Error::Leaving { .. } => failures >= PATIENT_WITH_LEAVING,
        error => error.is_final() || failures >= PATIENT,
    }
}

/// Says what was observed, if it is not said already. `last` is the plan by which the objects of an invalid monitor are kept.
async fn report(
    monitor: &RoseyMonitor,
    plan: &Result<Plan, Problems>,
    last: Option<&Plan>,
    applied: &Applied,
    sidecars: Sidecars,
    context: &Context,
) -> Result<(), Error> {
    let key = Key::of(monitor);
    if let Applied::Failed(error) = applied
        && !tells(error, context.backoff.failures(&key))
    {
        return Ok(());
    }
    let observation = Observation {
        generation: monitor.metadata.generation,
        plan: plan.as_ref(),
        applied,
        sidecars,
        selection: plan.as_ref().ok().map(|plan| selected(monitor, plan, context)),
        refused: plan
            .as_ref()
            .ok()
            .or(last)
            .map(|plan| context.refusals.of(&key, &plan.objects, &context.owned)),
    };
    let Standing {
        status: before,
        version,
    } = context.reports.standing(monitor);
    let now = status::status(observation, &before, k8s_openapi::jiff::Timestamp::now());
    if now == before {
        return Ok(());
    }
    info!(monitor = %key, reason = now.reason, says = now.message, "reporting");
    let written = context
        .reports
        .write(&context.client, &context.leadership, monitor, version, now.clone())
        .await?;
    if !written {
        return Ok(());
    }
    context.metrics.wrote_status();
    context.announcer.announce(monitor, &before, &now).await;
    Ok(())
}

fn selected(monitor: &RoseyMonitor, plan: &Plan, context: &Context) -> Selection {
    let namespace = monitor.metadata.namespace.as_deref().unwrap_or_default();
    let labels = context.landscape.labels_of(namespace);
    let home = Home {
        namespace,
        labels: labels.as_ref(),
    };
    let refused = context
        .refusals
        .of_scrape(&Key::of(monitor), &plan.objects, &context.owned);
    selection(&context.landscape.view(), home, &plan.objects).unless_refused(refused)
}

#[cfg(test)]
mod tests;
