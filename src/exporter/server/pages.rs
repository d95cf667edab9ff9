//! The few pages there are.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures::stream;
use serde_json::json;

use super::Caller;
use crate::exporter::compression::{self, Gzipped};
use crate::exporter::page::CONTENT_TYPE;
use crate::exporter::scrape::Exporter;
use crate::exporter::sources::deployments::{self, Event, Refusal};

pub(super) fn router(exporter: Arc<Exporter>) -> Router {
    Router::new()
        .route("/", get(landing))
        .route("/metrics", get(metrics).head(metrics_head))
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/record_deployment", post(record_deployment))
        .route("/record_rollback", post(record_rollback))
        .layer(DefaultBodyLimit::max(8 << 10))
        .with_state(exporter)
}

async fn landing() -> Html<&'static str> {
    Html(concat!(
        "<!doctype html><html lang=\"en\"><title>Rosey exporter</title><h1>Rosey exporter ",
        env!("CARGO_PKG_VERSION"),
        "</h1><p>Watches a chat bot for Prometheus.<ul><li><a href=\"/metrics\">Metrics</a>",
        "<li><a href=\"/health\">Health</a><li><a href=\"/ready\">Ready</a></ul></html>\n"
    ))
}

/// There is one format, whatever is asked for: Prometheus falls back to it, and so does everybody else.
async fn metrics(State(exporter): State<Arc<Exporter>>, headers: HeaderMap) -> Response {
    let limit = headers
        .get("x-prometheus-scrape-timeout-seconds")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .filter(|seconds| (0.001..=3600.0).contains(seconds))
        .map(Duration::from_secs_f64);
    let answer = exporter.scrape(limit).await;
    let body = if compression::takes_gzip(&headers) {
        Gzipped::of(answer)
    } else {
        Err(answer)
    };
    match body {
        Ok(gzipped) => (PAGE, [(header::CONTENT_ENCODING, "gzip")], Body::new(gzipped)).into_response(),
        Err(plain) => (PAGE, Body::new(plain)).into_response(),
    }
}

/// What a page of metrics is; who asks for the headers alone does not make the bot work for it. How long it would be is not known,
/// and a body of no known length keeps us from saying 0.
async fn metrics_head() -> impl IntoResponse {
    (PAGE, Body::from_stream(stream::empty::<Result<Bytes, Infallible>>()))
}

const PAGE: [(HeaderName, &str); 2] = [(header::CONTENT_TYPE, CONTENT_TYPE), (header::VARY, "accept-encoding")];

/// Always 200: the exporter lives. What is wrong stands in the document.
async fn health(State(exporter): State<Arc<Exporter>>) -> impl IntoResponse {
    exporter.refresh().await;
    let configuration = exporter.setup().borrow().problem.clone();
    let sources = exporter.problems();
    let pushing = exporter.pushing();
    let pushes = pushing.as_ref().is_none_or(Result::is_ok);
    let well = configuration.is_none() && pushes && sources.values().all(Option::is_none);
    let mut document = json!({
        "status": if well { "ok" } else { "degraded" },
        "configuration": configuration.as_deref().unwrap_or("ok"),
        "sources": sources.iter().map(|(source, problem)| (*source, problem.as_deref().unwrap_or("ok"))).collect::<std::collections::BTreeMap<_, _>>(),
    });
    if let Some(outcome) = pushing {
        document["pushgateway"] = outcome.err().as_deref().unwrap_or("ok").into();
    }
    Json(document)
}

async fn ready(State(exporter): State<Arc<Exporter>>) -> Response {
    exporter.refresh().await;
    let setup = exporter.setup();
    let setup = setup.borrow();
    match (&setup.config, &setup.problem) {
        (Some(_), _) => "ready\n".into_response(),
        (None, problem) => {
            let problem = problem.as_deref().unwrap_or("no configuration");
            (StatusCode::SERVICE_UNAVAILABLE, format!("{problem}\n")).into_response()
        }
    }
}

type Reader = fn(Vec<(String, String)>, Option<&str>) -> Result<Event, Refusal>;

async fn record_deployment(
    State(exporter): State<Arc<Exporter>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    record(&exporter, caller, &headers, &body, deployments::deployment).await
}

async fn record_rollback(
    State(exporter): State<Arc<Exporter>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    record(&exporter, caller, &headers, &body, deployments::rollback).await
}

async fn record(exporter: &Exporter, caller: Caller, headers: &HeaderMap, body: &[u8], read: Reader) -> Response {
    let refuse = |status: StatusCode, reason: String| (status, format!("{reason}\n")).into_response();
    if !caller.authenticated && !caller.peer.ip().to_canonical().is_loopback() {
        let known = "records are taken from this host only, or with a password or a certificate (--web.config.file)";
        return refuse(StatusCode::FORBIDDEN, known.into());
    }
    // A browser on this host sends any page's form to localhost; it names the page, curl does not.
    if headers.contains_key(header::ORIGIN) {
        return refuse(StatusCode::FORBIDDEN, "records are not taken from web pages".into());
    }
    let config = exporter.setup().borrow().config.clone();
    let Some(config) = config.filter(|config| config.deployments) else {
        let elsewhere = "deployments are not recorded here; in a cluster use kubectl rosey record";
        return refuse(StatusCode::NOT_FOUND, elsewhere.into());
    };
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let fields = match kind
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
        .as_str()
    {
        "application/x-www-form-urlencoded" => Ok(deployments::form(body)),
        "application/json" => deployments::json(body),
        _ => {
            let known = "send a form (application/x-www-form-urlencoded) or JSON (application/json)";
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, known.into());
        }
    };
    match fields.and_then(|fields| read(fields, config.environment.as_deref())) {
        Ok(event) => {
            let mut answer = json!({"status": "recorded"});
            if let Some(saved) = exporter.record(event).await {
                answer["saved"] = saved.into();
            }
            Json(answer).into_response()
        }
        Err(refusal) => refuse(StatusCode::BAD_REQUEST, refusal.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, SocketAddr};

    use super::*;
    use crate::exporter::configuration::Configuration;
    use crate::exporter::sources::fetch::Bot;
    use crate::sidecar::Config;

    #[tokio::test]
    async fn a_record_is_taken_from_this_host_or_from_somebody_known_and_not_from_web_pages() {
        let configuration = Configuration::fixed(Config {
            deployments: true,
            ..Config::default()
        });
        let exporter = Exporter::new(configuration, Bot::at("127.0.0.1"), "/".into());
        let form = HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            "application/x-www-form-urlencoded".parse().unwrap(),
        )]);
        let mut page = form.clone();
        page.insert(header::ORIGIN, "http://evil.example".parse().unwrap());
        let answer = async |peer: &str, authenticated, headers: &HeaderMap| {
            let peer = SocketAddr::from((peer.parse::<IpAddr>().unwrap(), 1234));
            let caller = Caller { peer, authenticated };
            let answer = record(&exporter, caller, headers, b"duration=1", deployments::rollback).await;
            answer.status().as_u16()
        };
        let status = async |peer: &str, headers: &HeaderMap| answer(peer, false, headers).await;
        assert_eq!(status("127.0.0.1", &form).await, 200);
        assert_eq!(status("::1", &form).await, 200);
        assert_eq!(status("::ffff:127.0.0.1", &form).await, 200);
        assert_eq!(status("10.0.0.1", &form).await, 403);
        assert_eq!(status("::ffff:10.0.0.1", &form).await, 403);
        assert_eq!(status("127.0.0.1", &page).await, 403);
        assert_eq!(answer("10.0.0.1", true, &form).await, 200);
        assert_eq!(answer("10.0.0.1", true, &page).await, 403);
        assert_eq!(status("127.0.0.1", &HeaderMap::new()).await, 415);
    }
}
