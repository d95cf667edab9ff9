//! The HTTP receiver: `/discord/<name>`, `/slack/<name>`, `/webhook/<name>`.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::Inbox;
use super::message::{DiscordMessage, SlackMessage, WebhookMessage};

/// The inboxes that the HTTP receiver fills.
#[derive(Clone)]
pub(crate) struct Inboxes {
    pub(crate) discord: Inbox<DiscordMessage>,
    pub(crate) slack: Inbox<SlackMessage>,
    pub(crate) webhook: Inbox<WebhookMessage>,
}

pub(crate) async fn serve(address: SocketAddr, inboxes: Inboxes) -> Result<JoinHandle<()>> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address}"))?;
    let router = Router::new()
        .route("/discord/{name}", post(discord))
        .route("/slack/{name}", post(slack))
        .route("/webhook/{name}", post(webhook))
        .with_state(inboxes);
    Ok(tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    }))
}

/// The body as JSON, and the typed view of it; a body that is not JSON is kept as a string.
fn read<T: DeserializeOwned + Default>(body: &str) -> (T, Value) {
    let value: Value = serde_json::from_str(body).unwrap_or_else(|_| Value::String(body.to_owned()));
    (serde_json::from_value(value.clone()).unwrap_or_default(), value)
}

async fn discord(State(inboxes): State<Inboxes>, Path(channel): Path<String>, text: String) -> StatusCode {
    let (message, body) = read::<DiscordMessage>(&text);
    inboxes.discord.put(DiscordMessage {
        channel,
        body,
        ..message
    });
    StatusCode::NO_CONTENT
}

async fn slack(State(inboxes): State<Inboxes>, Path(name): Path<String>, text: String) -> &'static str {
    let (message, body) = read::<SlackMessage>(&text);
    inboxes.slack.put(SlackMessage { name, body, ..message });
    "ok"
}

async fn webhook(State(inboxes): State<Inboxes>, Path(name): Path<String>, text: String) -> StatusCode {
    let (message, body) = read::<WebhookMessage>(&text);
    inboxes.webhook.put(WebhookMessage { name, body, ..message });
    StatusCode::OK
}
