//! The control plane, with no Prometheus stack.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{WatchEvent, WatchParams};
use lab::Lab;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_control_plane_comes_up_and_kubectl_works() -> Result<()> {
    let lab = Lab::builder().without_definitions().user("nobody").start().await?;
    assert_eq!(lab.kubectl(&["get", "nodes", "-o", "name"]).await?, "node/lab");

    lab.namespace("bots").await?;
    lab.apply("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: greeting, namespace: bots}\ndata: {text: hello}")
        .await?;
    let text = lab
        .kubectl(&[
            "get",
            "configmap",
            "greeting",
            "-n",
            "bots",
            "-o",
            "jsonpath={.data.text}",
        ])
        .await?;
    assert_eq!(text, "hello");

    let refused = lab
        .kubectl_with(&lab.kubeconfig_of("nobody")?, &["get", "pods"])
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("User \"nobody\" cannot list resource \"pods\""),
        "{refused}"
    );
    Ok(())
}

#[tokio::test]
async fn the_audit_log_tells_who_wrote_what_since_a_mark() -> Result<()> {
    let lab = Lab::builder()
        .without_definitions()
        .user_in("writer", &["system:masters"])
        .start()
        .await?;
    let kubeconfig = lab.kubeconfig_of("writer")?;
    lab.kubectl_with(&kubeconfig, &["create", "namespace", "before"])
        .await?;

    let mark = lab.audit().mark().await?;
    lab.kubectl_with(&kubeconfig, &["create", "namespace", "after"]).await?;
    lab.kubectl_with(&kubeconfig, &["get", "namespace", "after"]).await?;
    lab.kubectl(&["create", "namespace", "by-admin"]).await?;

    let writes = lab.audit().writes_by("writer", mark).await?;
    let [write] = writes.as_slice() else {
        panic!("{writes:?}")
    };
    assert_eq!(
        (write.verb.as_str(), write.object_ref.resource.as_str()),
        ("create", "namespaces")
    );
    assert_eq!(
        (write.object_ref.name.as_str(), write.response_status.code),
        ("after", 201)
    );
    assert!(
        lab.audit()
            .requests_by("writer", mark)
            .await?
            .iter()
            .any(|request| request.verb == "get")
    );
    Ok(())
}

#[tokio::test]
async fn cutting_a_proxy_ends_the_watches_that_go_through_it() -> Result<()> {
    let lab = Lab::builder().without_definitions().start().await?;
    let proxy = lab.proxy("admin").await?;
    let namespaces: Api<Namespace> = Api::all(proxy.client().await?);
    let mut watch = std::pin::pin!(namespaces.watch(&WatchParams::default(), "0").await?);
    assert!(matches!(watch.next().await, Some(Ok(WatchEvent::Added(_)))));
    assert!(proxy.connections() > 0);

    proxy.cut_all();
    let rest = async { while watch.next().await.is_some_and(|event| event.is_ok()) {} };
    tokio::time::timeout(SOON, rest).await.expect("the watch ends");
    lab::until(SOON, "the connections to be closed", async || {
        Ok(proxy.connections() == 0)
    })
    .await?;
    let pods = lab.kubectl_with(proxy.kubeconfig(), &["get", "pods", "-A"]).await?;
    assert_eq!(pods, "", "the proxy takes new connections");
    Ok(())
}

#[tokio::test]
async fn nothing_outlives_a_lab() -> Result<()> {
    let lab = Lab::builder().without_definitions().start().await?;
    // A child that ignores SIGTERM, with a child of its own.
    let stubborn = lab.spawn(
        "stubborn",
        Command::new("sh").args(["-c", "trap '' TERM; sleep 1000 & wait; sleep 1000"]),
    )?;
    let (logs, group) = (lab.logs_dir(), stubborn.id().to_string());
    assert!(in_group(&group)? > 0);
    drop(lab);
    lab::until(SOON, "the processes to be gone", async || Ok(in_group(&group)? == 0)).await?;
    assert!(!logs.exists());
    Ok(())
}

/// How many processes of the process group live; a dead one that its new parent has not reaped yet does not count.
fn in_group(group: &str) -> Result<usize> {
    let processes = std::fs::read_dir("/proc")?.flatten();
    let stats = processes.filter_map(|process| std::fs::read_to_string(process.path().join("stat")).ok());
    // pid (name) state parent group
    let fields = stats.filter_map(|stat| {
        Some(
            stat.rsplit_once(')')?
                .1
                .split_whitespace()
                .map(String::from)
                .collect::<Vec<_>>(),
        )
    });
    Ok(fields.filter(|fields| fields[2] == group && fields[0] != "Z").count())
}
