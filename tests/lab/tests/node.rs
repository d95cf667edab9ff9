//! The node agent, as a pod's owner sees it.

use std::time::Duration;

use anyhow::Result;
use kube::api::DynamicObject;
use lab::{Image, Lab};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(60);

fn at<'a>(object: &'a DynamicObject, pointer: &str) -> &'a Value {
    object.data.pointer(pointer).unwrap_or(&Value::Null)
}

async fn control_plane() -> Result<Lab> {
    let lab = Lab::builder()
        .without_definitions()
        .restart_back_off(Duration::from_millis(200))
        .start()
        .await?;
    lab.namespace("bots").await?;
    Ok(lab)
}

#[tokio::test]
async fn a_deployments_pods_run_with_their_environment_and_are_reported_ready() -> Result<()> {
    let lab = control_plane().await?;
    lab.apply(
        "
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: bots}
stringData: {token: hush}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: bot, namespace: bots}
spec:
  replicas: 2
  selector: {matchLabels: {app: bot}}
  template:
    metadata: {labels: {app: bot}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: bot
        image: busybox:1.36
        command: [sh, -c, 'echo $(GREETING) $TOKEN $NAME at $POD_IP; exec sleep 1000']
        env:
        - {name: GREETING, value: hello}
        - {name: TOKEN, valueFrom: {secretKeyRef: {name: keys, key: token}}}
        - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
",
    )
    .await?;
    lab.kubectl(&[
        "wait",
        "-n",
        "bots",
        "deployment/bot",
        "--for=condition=Available",
        "--timeout=60s",
    ])
    .await?;
    let names = lab
        .kubectl(&["get", "pods", "-n", "bots", "-o", "jsonpath={.items[*].metadata.name}"])
        .await?;
    let mut addresses = Vec::new();
    for name in names.split(' ') {
        let pod = lab.until_condition(SOON, "v1/Pod", "bots", name, "Ready").await?;
        let address = at(&pod, "/status/podIP").as_str().unwrap_or_default().to_owned();
        lab::until(SOON, "the pod's log", async || {
            Ok(!lab.pod_logs("bots", name, "bot")?.is_empty())
        })
        .await?;
        assert_eq!(
            lab.pod_logs("bots", name, "bot")?,
            format!("hello hush bots at {address}\n")
        );
        assert_eq!(at(&pod, "/status/phase"), "Running");
        assert_eq!(at(&pod, "/status/containerStatuses/0/ready"), true);
        addresses.push(address);
    }
    addresses.dedup();
    assert_eq!(addresses.len(), 2, "{addresses:?}");

    lab.kubectl(&["delete", "deployment", "bot", "-n", "bots"]).await?;
    for name in names.split(' ') {
        lab.until_gone(SOON, "v1/Pod", "bots", name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_job_with_a_native_sidecar_ends() -> Result<()> {
    let lab = control_plane().await?;
    lab.apply(
        "
apiVersion: batch/v1
kind: Job
metadata: {name: task, namespace: bots}
spec:
  template:
    spec:
      restartPolicy: Never
      initContainers:
      - {name: first, image: busybox, command: [sh, -c, 'echo done > $ROSEY_ROOTFS/data/first'], volumeMounts: [{name: data, mountPath: /data}]}
      - {name: beside, image: busybox, restartPolicy: Always, command: [sleep, '1000']}
      containers:
      - {name: main, image: busybox, command: [sh, -c, 'cat $ROSEY_ROOTFS/data/first'], volumeMounts: [{name: data, mountPath: /data}]}
      volumes: [{name: data, emptyDir: {}}]
",
    )
    .await?;
    lab.until_condition(SOON, "batch/v1/Job", "bots", "task", "Complete")
        .await?;
    let name = lab
        .kubectl(&["get", "pods", "-n", "bots", "-o", "jsonpath={.items[0].metadata.name}"])
        .await?;
    assert_eq!(lab.pod_logs("bots", &name, "main")?, "done\n");
    let pod = lab
        .get("v1/Pod", "bots", &name)
        .await?
        .expect("the pod of a finished job stays");
    assert_eq!(at(&pod, "/status/phase"), "Succeeded");
    assert_eq!(
        at(&pod, "/status/initContainerStatuses/1/state/terminated/exitCode"),
        128 + 15
    );
    Ok(())
}

#[tokio::test]
async fn an_image_that_is_not_in_the_table_holds_back_its_own_container_only() -> Result<()> {
    let lab = control_plane().await?;
    lab.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: bot, namespace: bots}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: bot, image: busybox, command: [sleep, '1000']}
  - {name: exporter, image: 'nowhere/exporter:1'}
",
    )
    .await?;
    let pod = lab
        .until_object(SOON, "v1/Pod", "bots", "bot", |pod| {
            at(pod, "/status/containerStatuses/1/state/waiting/reason") == "ImagePullBackOff"
        })
        .await?;
    assert_eq!(at(&pod, "/status/phase"), "Pending");
    assert!(
        at(&pod, "/status/containerStatuses/0/state/running").is_object(),
        "{:?}",
        pod.data
    );
    let running = at(&pod, "/status/containerStatuses/0/containerID").clone();

    // In place: the other container goes on.
    lab.set_image("nowhere/exporter:2", Image::Host);
    let patch = r#"{"spec":{"containers":[{"name":"exporter","image":"nowhere/exporter:2"}]}}"#;
    lab.kubectl(&["patch", "pod", "bot", "-n", "bots", "-p", patch]).await?;
    lab.until_object(SOON, "v1/Pod", "bots", "bot", |pod| {
        at(pod, "/status/containerStatuses/1/state/waiting/reason") == "CreateContainerConfigError"
    })
    .await?;
    lab.set_image("nowhere/exporter:2", Image::NoProcess);
    let pod = lab.until_condition(SOON, "v1/Pod", "bots", "bot", "Ready").await?;
    assert_eq!(at(&pod, "/status/containerStatuses/0/containerID"), &running);
    Ok(())
}

#[tokio::test]
async fn a_container_that_crashes_is_started_again_with_back_off() -> Result<()> {
    let lab = control_plane().await?;
    lab.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: bot, namespace: bots}
spec:
  containers: [{name: bot, image: busybox, command: [sh, -c, 'echo started; exit 3']}]
",
    )
    .await?;
    let pod = lab
        .until_object(SOON, "v1/Pod", "bots", "bot", |pod| {
            at(pod, "/status/containerStatuses/0/state/waiting/reason") == "CrashLoopBackOff"
                && at(pod, "/status/containerStatuses/0/restartCount").as_i64() >= Some(2)
        })
        .await?;
    assert_eq!(at(&pod, "/status/phase"), "Running");
    assert_eq!(at(&pod, "/status/containerStatuses/0/lastState/terminated/exitCode"), 3);
    assert!(lab.pod_logs("bots", "bot", "bot")?.starts_with("started\nstarted\n"));
    Ok(())
}

#[tokio::test]
async fn a_change_of_a_config_map_reaches_the_volume_of_a_running_pod() -> Result<()> {
    let lab = control_plane().await?;
    lab.apply(
        "
apiVersion: v1
kind: Pod
metadata: {name: bot, namespace: bots}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: bot
    image: busybox
    command: [sh, -c, 'while :; do cat $ROSEY_ROOTFS/etc/bot/mood 2>/dev/null || echo none; sleep 0.1; done']
    volumeMounts: [{name: config, mountPath: /etc/bot}]
  volumes: [{name: config, configMap: {name: config, optional: true}}]
",
    )
    .await?;
    let says = async |mood: &str| {
        let what = format!("the bot to say {mood}");
        lab::until(SOON, &what, async || {
            Ok(lab.pod_logs("bots", "bot", "bot")?.ends_with(&format!("{mood}\n")))
        })
        .await
    };
    says("none").await?;
    for mood in ["good", "bad"] {
        lab.apply(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: config, namespace: bots}}\ndata: {{mood: \"{mood}\\n\"}}"))
            .await?;
        says(mood).await?;
    }
    lab.kubectl(&["delete", "configmap", "config", "-n", "bots"]).await?;
    says("none").await
}

#[tokio::test]
async fn five_hundred_pods_without_a_process_run_at_once() -> Result<()> {
    let lab = control_plane().await?;
    lab.apply(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {name: many, namespace: bots}
spec:
  replicas: 500
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec: {containers: [{name: pause, image: 'pause:3'}]}
",
    )
    .await?;
    lab.until_object(SOON, "apps/v1/Deployment", "bots", "many", |many| {
        at(many, "/status/readyReplicas") == 500
    })
    .await?;
    Ok(())
}
