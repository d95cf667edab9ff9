//! A stack that takes up only what carries its label.

use anyhow::Result;
use lab::Lab;
use serde_json::json;

use crate::scene::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_that_nothing_selects_names_the_label_and_is_watched_once_its_objects_carry_it() -> Result<()> {
    let scene = Scene::of(Lab::builder().selector_label("release", "kube-prometheus-stack")).await?;
    scene.namespace("bots").await?;
    let monitor = scene.monitor("bots", "rosey", |_| {})?;
    scene.lab.apply(&monitor.to_string()).await?;

    // All objects are in place, and nobody looks at them.
    scene.condition("bots", "rosey", "Ready", "True").await?;
    let (reason, message) = scene.condition("bots", "rosey", "Selected", "False").await?;
    assert_eq!(reason, "NotSelected", "{message}");
    for part in [
        "Prometheus monitoring/lab does not select ",
        "release",
        "kube-prometheus-stack",
        "add it to spec.objectLabels",
    ] {
        assert!(message.contains(part), "{part:?} is not said: {message}");
    }
    let rules = scene.lab.prometheus().rules().await?;
    assert!(rules.is_empty(), "{rules:?}");

    let labelled = scene.monitor("bots", "rosey", |monitor| {
        monitor["spec"]["objectLabels"] = json!({ "release": "kube-prometheus-stack" });
    })?;
    scene.put_in_force(&labelled).await?;
    let (reason, message) = scene.condition("bots", "rosey", "Selected", "True").await?;
    assert_eq!(
        (reason.as_str(), message.as_str()),
        (
            "Selected",
            "selected by Prometheus monitoring/lab and Alertmanager monitoring/lab"
        )
    );
    scene.lab.nothing_was_forbidden().await
}
