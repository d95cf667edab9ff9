//! Readiness probes by HTTP and TCP.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// True for the kinds that are carried out; a container with another is ready when it runs.
pub(crate) fn can_ask(probe: &Probe) -> bool {
    probe.http_get.is_some() || probe.tcp_socket.is_some()
}

/// One attempt, within the probe's own timeout.
pub(crate) async fn ask(probe: &Probe, container: &Container, ip: &str) -> bool {
    let number = |port: &IntOrString| match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let ports = container.ports.iter().flatten();
            ports
                .into_iter()
                .find(|port| port.name.as_ref() == Some(name))
                .map(|port| port.container_port)
        }
    };
    let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds.unwrap_or(1)).unwrap_or(1));
    let attempt = async {
        if let Some(http) = &probe.http_get {
            let path = http.path.as_deref().unwrap_or("/");
            let url = format!("http://{ip}:{}{path}", number(&http.port)?);
            let answer = reqwest::get(url).await.ok()?;
            return Some(answer.status().as_u16() < 400);
        }
        let port = u16::try_from(number(&probe.tcp_socket.as_ref()?.port)?).ok()?;
        tokio::net::TcpStream::connect((ip, port)).await.ok().map(|_| true)
    };
    tokio::time::timeout(timeout, attempt)
        .await
        .ok()
        .flatten()
        .unwrap_or(false)
}
