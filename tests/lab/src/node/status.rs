//! A pod's status, put together from its containers' as kubelet does.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, HostIP, Pod,
    PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::{Timestamp, Unit};

/// The time now, in whole seconds as the API has it.
pub(crate) fn now() -> Time {
    let now = Timestamp::now();
    Time(now.round(Unit::Second).unwrap_or(now))
}

pub(crate) fn waiting(reason: &str, message: impl Into<String>) -> ContainerState {
    let message = Some(message.into()).filter(|message| !message.is_empty());
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.into()),
            message,
        }),
        ..ContainerState::default()
    }
}

/// The status of a container that was not looked at yet.
pub(crate) fn fresh(container: &Container, reason: &str) -> ContainerStatus {
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        started: Some(false),
        state: Some(waiting(reason, "")),
        ..ContainerStatus::default()
    }
}

/// True for an init container that runs beside the others.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// What is known of a pod beside its containers.
pub(crate) struct Facts<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) containers: &'a BTreeMap<String, ContainerStatus>,
    pub(crate) address: Option<String>,
    pub(crate) host: String,
    pub(crate) start_time: Option<Time>,
    pub(crate) init_failed: bool,
    pub(crate) finished: bool,
}

fn terminated(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

fn is_running(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.running.is_some())
}

impl Facts<'_> {
    fn of(&self, container: &Container) -> ContainerStatus {
        self.containers
            .get(&container.name)
            .cloned()
            .unwrap_or_else(|| fresh(container, "PodInitializing"))
    }

    pub(crate) fn status(&self) -> PodStatus {
        let Some(spec) = &self.pod.spec else {
            return PodStatus::default();
        };
        let inits: Vec<(&Container, ContainerStatus)> = spec
            .init_containers
            .iter()
            .flatten()
            .map(|container| (container, self.of(container)))
            .collect();
        let mains: Vec<ContainerStatus> = spec.containers.iter().map(|container| self.of(container)).collect();

        let initialized = inits.iter().all(|(container, status)| {
            if is_sidecar(container) {
                status.started == Some(true) || terminated(status).is_some()
            } else {
                terminated(status).is_some_and(|end| end.exit_code == 0)
            }
        });
        let phase = self.phase(initialized, &mains);
        let sidecars = inits
            .iter()
            .filter(|(container, _)| is_sidecar(container))
            .map(|(_, status)| status);
        let unready: Vec<&str> = mains
            .iter()
            .chain(sidecars)
            .filter(|status| !status.ready)
            .map(|status| status.name.as_str())
            .collect();
        let gates_open = spec.readiness_gates.iter().flatten().all(|gate| {
            let conditions = self
                .pod
                .status
                .iter()
                .flat_map(|status| status.conditions.iter().flatten());
            conditions
                .into_iter()
                .any(|condition| condition.type_ == gate.condition_type && condition.status == "True")
        });

        let over = matches!(phase, "Succeeded" | "Failed");
        let containers_ready = unready.is_empty() && initialized && !over;
        let (reason, message) = if phase == "Succeeded" {
            ("PodCompleted", String::new())
        } else {
            (
                "ContainersNotReady",
                format!("containers with unready status: [{}]", unready.join(" ")),
            )
        };
        let condition =
            |kind: &str, holds: bool, reason: &str, message: &str| self.condition(kind, holds, reason, message);
        let ready = containers_ready && gates_open;
        let gate_reason = if containers_ready {
            "ReadinessGatesNotReady"
        } else {
            reason
        };
        let conditions = vec![
            condition("PodReadyToStartContainers", self.address.is_some() && !over, "", ""),
            condition("Initialized", initialized, "ContainersNotInitialized", ""),
            condition("ContainersReady", containers_ready, reason, &message),
            condition("Ready", ready, gate_reason, &message),
        ];
        PodStatus {
            phase: Some(phase.to_owned()),
            conditions: Some(conditions),
            host_ip: Some(self.host.clone()),
            host_ips: Some(vec![HostIP { ip: self.host.clone() }]),
            pod_ip: self.address.clone(),
            pod_ips: self.address.clone().map(|ip| vec![PodIP { ip }]),
            start_time: self.start_time.clone(),
            container_statuses: Some(mains),
            init_container_statuses: Some(inits.into_iter().map(|(_, status)| status).collect::<Vec<_>>())
                .filter(|statuses| !statuses.is_empty()),
            ..PodStatus::default()
        }
    }

    fn phase(&self, initialized: bool, mains: &[ContainerStatus]) -> &'static str {
        if self.init_failed {
            return if self.finished { "Failed" } else { "Pending" };
        }
        if self.finished {
            let all_good = mains
                .iter()
                .all(|status| terminated(status).is_some_and(|end| end.exit_code == 0));
            return if all_good { "Succeeded" } else { "Failed" };
        }
        // A container that waits for its next start after a crash counts as stopped, not as waiting.
        let waits = |status: &ContainerStatus| {
            status.last_state.as_ref().is_none_or(|last| last.terminated.is_none())
                && status.state.as_ref().is_none_or(|state| state.waiting.is_some())
        };
        if !initialized
            && !mains
                .iter()
                .any(|status| is_running(status) || terminated(status).is_some())
        {
            return "Pending";
        }
        if mains.iter().any(waits) { "Pending" } else { "Running" }
    }

    fn condition(&self, kind: &str, holds: bool, reason: &str, message: &str) -> PodCondition {
        let status = if holds { "True" } else { "False" };
        let before = self
            .pod
            .status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten());
        let since = before
            .filter(|condition| condition.type_ == kind && condition.status == status)
            .find_map(|condition| condition.last_transition_time.clone());
        let text = |text: &str| (!holds && !text.is_empty()).then(|| text.to_owned());
        PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: text(reason),
            message: text(message),
            last_transition_time: Some(since.unwrap_or_else(now)),
            ..PodCondition::default()
        }
    }
}
