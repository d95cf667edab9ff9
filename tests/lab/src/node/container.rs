//! One container: started, watched, started again.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerState, ContainerStateRunning, ContainerStateTerminated};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tokio::sync::watch;
use tokio::time::Instant;

use super::image::Image;
use super::pod::Place;
use super::probe::{ask, can_ask};
use super::status::{self, waiting};
use crate::process::Process;

/// Which part a container has in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Init,
    /// An init container that goes on beside the others.
    Sidecar,
    Main,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Progress {
    started: bool,
    /// Whether it ended well, once it has ended for good.
    finished: Option<bool>,
}

/// A container that was started and is looked after by a task of its own.
pub(crate) struct Running {
    pub(crate) role: Role,
    progress: watch::Receiver<Progress>,
    stop: watch::Sender<Option<Instant>>,
}

impl Running {
    pub(crate) async fn started(&self) {
        let _ = self.progress.clone().wait_for(|progress| progress.started).await;
    }

    /// Waits until it will not be started again; true if it ended well.
    pub(crate) async fn finished(&self) -> bool {
        let mut progress = self.progress.clone();
        let end = progress.wait_for(|progress| progress.finished.is_some()).await;
        end.is_ok_and(|progress| progress.finished == Some(true))
    }

    /// SIGTERM now, SIGKILL at `deadline`; comes back when it is gone.
    pub(crate) async fn stop(&self, deadline: Instant) {
        self.stop.send_replace(Some(deadline));
        self.finished().await;
    }
}

/// Starts to look after `container`.
pub(crate) fn start(place: Arc<Place>, container: &Container, role: Role) -> Arc<Running> {
    let (progress_sender, progress) = watch::channel(Progress::default());
    let (stop, stopped) = watch::channel(None);
    let tasks = place.ground.tasks.clone();
    let keeper = Keeper {
        place,
        name: container.name.clone(),
        role,
        progress: progress_sender,
        stopped,
        restarts: 0,
        crashes: 0,
    };
    tasks.spawn(keeper.keep());
    Arc::new(Running { role, progress, stop })
}

struct Keeper {
    place: Arc<Place>,
    name: String,
    role: Role,
    progress: watch::Sender<Progress>,
    stopped: watch::Receiver<Option<Instant>>,
    restarts: i32,
    crashes: u32,
}

/// How one run of a container ended.
enum End {
    /// By itself, with this exit code.
    Exited(i32),
    /// Because its image was changed in the pod's spec.
    ImageChanged,
    /// Because it was told to.
    Stopped(i32),
}

impl Keeper {
    async fn keep(mut self) {
        let good = self.run_until_done().await;
        self.progress.send_modify(|progress| {
            *progress = Progress {
                started: true,
                finished: Some(good),
            }
        });
    }

    async fn run_until_done(&mut self) -> bool {
        loop {
            let Some(container) = self.place.container(&self.name) else {
                return false;
            };
            let image = self.place.image(&container);
            if self.stopped.borrow().is_some() {
                return false;
            }
            let started = Instant::now();
            let code = match self.run(&container, image).await {
                Some(End::Stopped(code)) => return code == 0,
                Some(End::Exited(code)) => code,
                Some(End::ImageChanged) => {
                    self.restarts += 1;
                    continue;
                }
                // It could not be started; what is needed may have changed meanwhile.
                None => continue,
            };
            let policy = self.place.restart_policy();
            let again = match (self.role, policy.as_str()) {
                (Role::Sidecar, _) => true,
                (Role::Init, "Never") => false,
                (Role::Init, _) | (Role::Main, "OnFailure") => code != 0,
                (Role::Main, policy) => policy == "Always",
            };
            if !again {
                return code == 0;
            }
            self.restarts += 1;
            let longest = self.place.ground.back_off * 30;
            if started.elapsed() > longest * 2 {
                self.crashes = 0;
            }
            // As kubelet does it: the first restart comes at once, each later one after twice the pause.
            if self.crashes > 0 {
                let pause = (self.place.ground.back_off * 2_u32.saturating_pow(self.crashes - 1)).min(longest);
                self.back_off(&container, pause).await;
            }
            self.crashes = (self.crashes + 1).min(16);
        }
    }

    async fn back_off(&mut self, container: &Container, pause: Duration) {
        let message = format!(
            "back-off {pause:?} restarting failed container={} pod={}_{}({})",
            self.name, self.place.name, self.place.namespace, self.place.uid
        );
        self.place.record(container, |status| {
            status.last_state = status.state.take();
            status.state = Some(waiting("CrashLoopBackOff", message));
        });
        let image = container.image.clone();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop_requested(&mut self.stopped) => {}
            () = image_changed(&self.place, &self.name, image.as_deref()) => {}
        }
    }

    /// Starts the container once and waits for its end; `None` if it could not be started.
    async fn run(&mut self, container: &Container, image: Image) -> Option<End> {
        let reference = container.image.clone().unwrap_or_default();
        let process = match image {
            Image::Missing => {
                self.refuse_image(container, &reference).await;
                return None;
            }
            Image::NoProcess => None,
            Image::Binary(_) | Image::Host => match self.spawn(container, &image) {
                Ok(process) => Some(process),
                Err(error) => {
                    let message = format!("{error:#}");
                    self.place.record(container, |status| {
                        status.state = Some(waiting("CreateContainerConfigError", message));
                    });
                    let mut changed = self.place.ground.objects.changed.clone();
                    tokio::select! {
                        _ = changed.changed() => {}
                        () = tokio::time::sleep(Duration::from_secs(1)) => {}
                        () = stop_requested(&mut self.stopped) => {}
                    }
                    return None;
                }
            },
        };
        let since = status::now();
        let id = format!("lab://{}{}", crate::random_hex(), crate::random_hex());
        let ready = process.is_none() || container.readiness_probe.as_ref().is_none_or(|probe| !can_ask(probe));
        let restarts = self.restarts;
        self.place.record(container, |status| {
            status.last_state = status
                .state
                .take()
                .filter(|state| state.terminated.is_some())
                .or(status.last_state.take());
            status.state = Some(ContainerState {
                running: Some(ContainerStateRunning {
                    started_at: Some(since.clone()),
                }),
                ..ContainerState::default()
            });
            status.image_id = format!("lab://{reference}");
            status.image.clone_from(&reference);
            status.container_id = Some(id.clone());
            status.restart_count = restarts;
            status.started = Some(true);
            status.ready = ready && self.role != Role::Init;
        });
        self.progress.send_modify(|progress| progress.started = true);

        let Some(process) = process else {
            if self.role == Role::Init {
                self.ended(container, 0, since, &id);
                return Some(End::Exited(0));
            }
            tokio::select! {
                () = stop_requested(&mut self.stopped) => {}
                () = image_changed(&self.place, &self.name, Some(&reference)) => {
                    self.ended(container, 0, since, &id);
                    return Some(End::ImageChanged);
                }
            }
            self.ended(container, 0, since, &id);
            return Some(End::Stopped(0));
        };
        let grace = Duration::from_secs(30);
        let mut stopped = self.stopped.clone();
        let end = tokio::select! {
            status = process.ended() => End::Exited(code(status)),
            () = stop_requested(&mut stopped) => {
                let deadline = (*stopped.borrow()).unwrap_or_else(Instant::now);
                End::Stopped(end_process(&process, deadline).await)
            }
            () = image_changed(&self.place, &self.name, Some(&reference)) => {
                end_process(&process, Instant::now() + grace).await;
                End::ImageChanged
            }
            () = self.probe(container) => End::Exited(255),
        };
        let last = code(process.ended().await);
        self.ended(container, last, since, &id);
        Some(end)
    }

    fn spawn(&self, container: &Container, image: &Image) -> anyhow::Result<Process> {
        let pod = self.place.pod().ok_or_else(|| anyhow::anyhow!("the pod is gone"))?;
        let root = self.place.folders.root(container)?;
        let mut command = self.place.surroundings(&pod).command(container, image, &root)?;
        let log = log_file(&self.place, &self.name);
        let name = format!("{}/{}/{}", self.place.namespace, self.place.name, self.name);
        self.place.ground.supervisor.spawn(&name, &mut command, &log)
    }

    async fn refuse_image(&mut self, container: &Container, reference: &str) {
        let mut images = self.place.ground.images.changed.subscribe();
        images.borrow_and_update();
        let missing = format!("failed to pull image {reference:?}: it is not in the lab's table of images");
        self.place.record(container, |status| {
            reference.clone_into(&mut status.image);
            status.ready = false;
            status.state = Some(waiting("ErrImagePull", missing));
        });
        let pull_failed = tokio::time::sleep(Duration::from_millis(300));
        let back_off = async {
            pull_failed.await;
            let message = format!("Back-off pulling image {reference:?}");
            self.place.record(container, |status| {
                status.state = Some(waiting("ImagePullBackOff", message));
            });
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = back_off => {}
            _ = images.changed() => {}
            () = stop_requested(&mut self.stopped) => {}
            () = image_changed(&self.place, &self.name, Some(reference)) => {}
        }
    }

    fn ended(&self, container: &Container, code: i32, since: Time, id: &str) {
        let end = ContainerStateTerminated {
            exit_code: code,
            reason: Some(if code == 0 { "Completed" } else { "Error" }.to_owned()),
            started_at: Some(since),
            finished_at: Some(status::now()),
            container_id: Some(id.to_owned()),
            ..ContainerStateTerminated::default()
        };
        self.place.record(container, |status| {
            status.state = Some(ContainerState {
                terminated: Some(end),
                ..ContainerState::default()
            });
            // kubelet calls an init container that ended well ready.
            status.ready = self.role == Role::Init && code == 0;
            status.started = Some(false);
        });
    }

    /// Carries an HTTP or TCP readiness probe out for as long as the container runs; never comes back.
    async fn probe(&self, container: &Container) {
        let Some(probe) = container.readiness_probe.as_ref().filter(|probe| can_ask(probe)) else {
            return std::future::pending().await;
        };
        let period = Duration::from_secs(u64::try_from(probe.period_seconds.unwrap_or(10).max(1)).unwrap_or(1));
        let delay =
            Duration::from_secs(u64::try_from(probe.initial_delay_seconds.unwrap_or_default()).unwrap_or_default());
        tokio::time::sleep(delay).await;
        let mut ready = false;
        let (mut passed, mut failed) = (0, 0);
        loop {
            if ask(probe, container, &self.place.ip.to_string()).await {
                (passed, failed) = (passed + 1, 0);
            } else {
                (passed, failed) = (0, failed + 1);
            }
            let now = if ready {
                failed < probe.failure_threshold.unwrap_or(3)
            } else {
                passed >= probe.success_threshold.unwrap_or(1)
            };
            if now != ready {
                ready = now;
                self.place.record(container, |status| status.ready = ready);
            }
            // A container that is not ready yet is asked more often than kubelet would, so that tests need not wait.
            tokio::time::sleep(if ready { period } else { Duration::from_millis(200) }).await;
        }
    }
}

/// The log of a container; a pod that comes again under the same name has a log of its own.
pub(crate) fn log_file(place: &Place, container: &str) -> std::path::PathBuf {
    let folder = format!("{}_{}_{}", place.namespace, place.name, place.uid);
    place.ground.logs.join(folder).join(format!("{container}.log"))
}

async fn stop_requested(stopped: &mut watch::Receiver<Option<Instant>>) {
    let _ = stopped.wait_for(Option::is_some).await;
}

async fn image_changed(place: &Place, name: &str, image: Option<&str>) {
    let mut object = place.object.clone();
    loop {
        if place
            .container(name)
            .is_some_and(|container| container.image.as_deref() != image)
        {
            return;
        }
        if object.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

async fn end_process(process: &Process, deadline: Instant) -> i32 {
    let _ = process.terminate();
    if let Ok(status) = tokio::time::timeout_at(deadline, process.ended()).await {
        return code(status);
    }
    let _ = process.kill();
    code(process.ended().await)
}

/// The exit code as a container runtime reports it: 128 and the signal's number for one that was killed.
fn code(status: Option<ExitStatus>) -> i32 {
    status.map_or(255, |status| {
        status
            .code()
            .or_else(|| status.signal().map(|signal| 128 + signal))
            .unwrap_or(255)
    })
}
