//! What was posted or mailed to the bot: a receiver of alerts, where there is nothing else that could be one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::extract::{DefaultBodyLimit, Path, State as Shared};
use axum::response::Json;
use axum::routing::get;
use serde_json::Value;

/// How many messages are kept, of all channels together.
const MESSAGES: usize = 256;
/// How large one may be, in bytes.
pub(super) const LARGEST: usize = 64 << 10;

/// Channel and body of each message, the oldest first.
#[derive(Clone, Default)]
pub(super) struct Inbox(Arc<Mutex<VecDeque<(String, Value)>>>);

impl Inbox {
    pub(super) fn routes(self) -> Router {
        Router::new()
            .route("/inbox/{channel}", get(read).post(put))
            .layer(DefaultBodyLimit::max(LARGEST))
            .with_state(self)
    }

    /// Keeps one more message; the oldest has to go for it where there are too many.
    pub(super) fn keep(&self, channel: String, body: Value) {
        let mut messages = self.messages();
        if messages.len() == MESSAGES {
            messages.pop_front();
        }
        messages.push_back((channel, body));
    }

    /// What there is of a channel.
    pub(super) fn of(&self, wanted: &str) -> Vec<Value> {
        let messages = self.messages();
        let ours = messages.iter().filter(|(channel, _)| channel == wanted);
        ours.map(|(_, body)| body.clone()).collect()
    }

    fn messages(&self) -> MutexGuard<'_, VecDeque<(String, Value)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(Shared(inbox): Shared<Inbox>, Path(wanted): Path<String>) -> Json<Vec<Value>> {
    Json(inbox.of(&wanted))
}

/// A body that is not JSON is kept as text. The answer is Slack's: Alertmanager takes any other text for a failure, and tells again
/// (`checkTextResponseError` in notify/slack/slack.go); the other services look at the status alone.
async fn put(Shared(inbox): Shared<Inbox>, Path(channel): Path<String>, body: String) -> &'static str {
    let body = serde_json::from_str(&body).unwrap_or(Value::String(body));
    inbox.keep(channel, body);
    "ok"
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::{Request, StatusCode};
    use serde_json::json;
    use tower::ServiceExt;

    use super::*;

    async fn ask(inbox: &Inbox, request: Request<Body>) -> (StatusCode, String) {
        let answer = inbox.clone().routes().oneshot(request).await.unwrap();
        let (status, body) = (answer.status(), to_bytes(answer.into_body(), 1 << 20).await.unwrap());
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn post(inbox: &Inbox, channel: &str, body: String) -> (StatusCode, String) {
        let request = Request::post(format!("/inbox/{channel}")).body(Body::from(body));
        ask(inbox, request.unwrap()).await
    }

    async fn kept(inbox: &Inbox, channel: &str) -> Value {
        let request = Request::get(format!("/inbox/{channel}")).body(Body::empty());
        serde_json::from_str(&ask(inbox, request.unwrap()).await.1).unwrap()
    }

    #[tokio::test]
    async fn each_channel_has_what_was_posted_to_it_the_oldest_first() {
        let inbox = Inbox::default();
        for (channel, body) in [("ops", "{\"content\": \"one\"}"), ("other", "[]"), ("ops", "no JSON")] {
            let answer = post(&inbox, channel, body.into()).await;
            assert_eq!(answer, (StatusCode::OK, "ok".to_owned()), "{body}");
        }
        assert_eq!(kept(&inbox, "ops").await, json!([{"content": "one"}, "no JSON"]));
        assert_eq!(kept(&inbox, "other").await, json!([[]]));
        assert_eq!(kept(&inbox, "nobody").await, json!([]));
    }

    #[tokio::test]
    async fn what_is_too_large_is_refused_and_what_is_too_old_is_forgotten() {
        let inbox = Inbox::default();
        assert_eq!(
            post(&inbox, "ops", " ".repeat(LARGEST + 1)).await.0,
            StatusCode::PAYLOAD_TOO_LARGE
        );
        for n in 0..=MESSAGES {
            post(&inbox, "ops", n.to_string()).await;
        }
        let kept = kept(&inbox, "ops").await;
        assert_eq!((kept.as_array().unwrap().len(), &kept[0]), (MESSAGES, &json!(1)));
    }
}
