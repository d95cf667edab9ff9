//! What the API server makes of a monitor: defaults, refusals, documentation.

use anyhow::{Result, ensure};
use rosey_monitor::api::{RoseyMonitor, RoseyMonitorSpec};
use serde_json::{Value, json};

use crate::stage::{BOTS, MONITOR, SOON, Stage, stage};

fn monitor(name: &str, more: &Value) -> Value {
    let mut spec = json!({"environment": "prod", "selector": {"matchLabels": {"app": "rosey"}}});
    for (key, value) in more.as_object().into_iter().flatten() {
        spec[key] = value.clone();
    }
    let metadata = json!({"name": name, "namespace": BOTS});
    json!({"apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor", "metadata": metadata, "spec": spec})
}

fn secret() -> Value {
    json!({"name": "rosey-channels", "key": "key"})
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_servers_defaults_are_those_of_the_types_and_its_refusals_name_the_element() -> Result<()> {
    let stage = stage(lab::Builder::without_definitions).await?;
    stage
        .until_object(
            SOON,
            "apiextensions.k8s.io/v1/CustomResourceDefinition",
            "",
            "roseymonitors.rosey.dev",
            |_| true,
        )
        .await?;

    let minimal = [
        ("nothing", json!({})),
        (
            "parents",
            json!({"bot": {}, "exporter": {}, "scrape": {}, "alerts": {}, "notifications": {}}),
        ),
        (
            "bot",
            json!({"bot": {"health": {"port": 8000}, "metrics": {"port": 8000}}}),
        ),
        (
            "exporter",
            json!({"exporter": {"disk": [{"volume": "data"}], "backups": {"volume": "backups"}, "resources": {}}}),
        ),
        (
            "override",
            json!({"alerts": {"overrides": [{"alert": "BotDown", "levels": [{"severity": "warning"}]}]}}),
        ),
        (
            "channels",
            json!({"notifications": {
                "channels": [
                    {"name": "discord", "discord": {"webhookSecretRef": secret()}},
                    {"name": "slack", "slack": {"webhookSecretRef": secret()}},
                    {"name": "mail", "email": {"to": ["a@example.org"], "from": "b@example.org", "smarthost": "mail:25"}},
                    {"name": "hook", "webhook": {"urlSecretRef": secret()}},
                ],
                "routes": [{"name": "all", "channels": ["discord"]}],
                "inhibit": [{"source": "BotDown", "targets": ["HighResponseTime"]}],
            }}),
        ),
    ];
    for (name, more) in minimal {
        let written = monitor(name, &more);
        stage.apply(&written.to_string()).await?;
        let stored = stage.object(MONITOR, BOTS, name).await?.data["spec"].clone();
        let read: RoseyMonitorSpec = serde_json::from_value(stored.clone())?;
        let ours: RoseyMonitor = serde_json::from_value(written)?;
        assert_eq!(read, ours.spec, "{name}: the API server stored {stored}");
        // Nor does the API server leave a static default to us: what it stores is all there is.
        assert_eq!(stored, serde_json::to_value(&ours.spec)?, "{name}");
    }

    let long = "a".repeat(41);
    for (name, more, said) in [
        (
            long.as_str(),
            json!({}),
            "metadata.name must be a DNS label of at most 40 characters",
        ),
        ("wrong", json!({"selector": {}}), "must name at least one label"),
        (
            "wrong",
            json!({"notifications": {"channels": [{"name": "none"}]}}),
            "channel none must have exactly one of discord, slack, email, webhook",
        ),
        (
            "wrong",
            json!({"notifications": {"channels": [{"name": "both", "discord": {"webhookSecretRef": secret()}, "webhook": {"urlSecretRef": secret()}}]}}),
            "channel both must have exactly one of discord, slack, email, webhook",
        ),
        (
            "wrong",
            json!({"notifications": {"channels": [{"name": "mail", "email": {"to": ["a@b"], "from": "a@b", "smarthost": "mail:25", "username": "me"}}]}}),
            "username and passwordSecretRef go together",
        ),
        (
            "wrong",
            json!({"alerts": {"overrides": [{"alert": "BotDown", "enabled": false, "levels": [{"severity": "critical"}]}]}}),
            "alert BotDown has enabled: false and levels; remove one of them",
        ),
        ("wrong", json!({"environment": ""}), "spec.environment"),
        ("wrong", json!({"scrape": {"interval": "soon"}}), "spec.scrape.interval"),
    ] {
        let refused = stage.apply(&monitor(name, &more).to_string()).await.err();
        let refused = refused.map(|error| format!("{error:#}")).unwrap_or_default();
        ensure!(refused.contains(said), "{said:?} is not in {refused:?}");
    }

    fields_are_explained(&stage).await
}

async fn fields_are_explained(stage: &Stage) -> Result<()> {
    for (field, says) in [
        ("notifications.routes.mention", "Whom a message calls"),
        ("exporter.disk.path", "Folder in the volume, without `..`"),
        (
            "alerts.overrides.levels.threshold",
            "The value at which the alert fires, in the alert's unit",
        ),
    ] {
        // The documentation of a new kind is published a moment after the kind is served.
        let field_path = format!("roseymonitor.spec.{field}");
        let explained = lab::eventually(SOON, "the API server to explain the field", async || {
            stage.kubectl(&["explain", &field_path]).await.map(Some)
        })
        .await?;
        let flat = explained.split_whitespace().collect::<Vec<_>>().join(" ");
        ensure!(flat.contains(says), "{field}: {explained}");
    }
    Ok(())
}
