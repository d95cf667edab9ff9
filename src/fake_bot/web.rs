//! The two listeners: the bot, which can go away, and its control, which stays.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State as Shared;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::Options;
use super::inbox::Inbox;
use super::logs::Log;
use super::mail;
use super::state::{Change, Fault, Shape, State};

#[derive(Clone)]
struct Bot {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
    log: Option<Arc<Mutex<Log>>>,
    inbox: Inbox,
    shape: Shape,
    drift: bool,
}

impl Bot {
    fn log(&self) -> Option<MutexGuard<'_, Log>> {
        let log = self.log.as_ref()?;
        Some(log.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The state as of now.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.tick(Instant::now(), self.drift);
        state
    }

    async fn until(&self, closed: bool) {
        loop {
            let changed = self.changed.notified();
            if (self.state().fault == Fault::ClosedPort) == closed {
                return;
            }
            changed.await;
        }
    }
}

pub(super) async fn serve(options: Options) -> std::io::Result<()> {
    let state = Arc::new(Mutex::new(State::new(Instant::now())));
    let log = options.log.map(|path| Log::open(&path, Instant::now())).transpose()?;
    let bot = Bot {
        state,
        changed: Arc::default(),
        log: log.map(|log| Arc::new(Mutex::new(log))),
        inbox: Inbox::default(),
        shape: options.shape,
        drift: options.drift,
    };
    let control = TcpListener::bind((options.listen, options.control_port)).await?;
    let listener = TcpListener::bind((options.listen, options.port)).await?;
    let address = listener.local_addr()?;
    let mail = match options.mail_port {
        Some(port) => Some(TcpListener::bind((options.listen, port)).await?),
        None => None,
    };
    if let Some(mail) = &mail {
        println!("mail on {}", mail.local_addr()?);
    }
    println!(
        "bot on http://{address} control on http://{}/control",
        control.local_addr()?
    );
    let inbox = bot.inbox.clone();
    tokio::try_join!(
        async { axum::serve(control, control_routes(bot.clone())).await },
        listen(listener, address, bot.clone()),
        tick(bot.clone()),
        write(bot.clone()),
        async {
            if let Some(listener) = mail {
                mail::serve(listener, inbox).await;
            }
            Ok(())
        }
    )?;
    Ok(())
}

/// Drift goes on while nobody looks.
async fn tick(bot: Bot) -> std::io::Result<()> {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        drop(bot.state());
    }
}

/// The log grows without being looked at, too.
async fn write(bot: Bot) -> std::io::Result<()> {
    loop {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let Some(mut log) = bot.log() else {
            return Ok(());
        };
        log.tick(Instant::now())?;
    }
}

async fn listen(listener: TcpListener, address: SocketAddr, bot: Bot) -> std::io::Result<()> {
    let mut listener = Some(listener);
    loop {
        let open = if let Some(open) = listener.take() {
            open
        } else if let Ok(open) = TcpListener::bind(address).await {
            open
        } else {
            // Somebody took the port meanwhile.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        tokio::select! {
            done = async { axum::serve(open, routes(bot.clone())).await } => done?,
            () = bot.until(true) => {}
        }
        bot.until(false).await;
    }
}

fn control_routes(bot: Bot) -> Router {
    let inbox = bot.inbox.clone().routes();
    Router::new()
        .route("/control", get(describe).post(change))
        .route("/control/recover", post(recover))
        .with_state(bot)
        .merge(inbox)
}

fn routes(bot: Bot) -> Router {
    Router::new()
        .route("/api/health", get(health))
        .route("/metrics", get(metrics))
        .route("/api/metrics", get(plugins))
        .with_state(bot.clone())
        .merge(control_routes(bot))
}

async fn health(Shared(bot): Shared<Bot>) -> Response {
    let (document, fault, delay) = {
        let mut state = bot.state();
        state.health_reads += 1;
        (state.health(bot.shape, Instant::now()), state.fault, state.delay)
    };
    answer(fault, delay, "application/json", document.to_string()).await
}

async fn metrics(Shared(bot): Shared<Bot>) -> Response {
    let (text, fault, delay) = {
        let mut state = bot.state();
        state.metrics_reads += 1;
        (state.metrics(), state.fault, state.delay)
    };
    answer(fault, delay, "text/plain; version=0.0.4; charset=utf-8", text).await
}

async fn plugins(Shared(bot): Shared<Bot>) -> Response {
    let (document, fault, delay) = {
        let state = bot.state();
        (state.plugins(Instant::now()), state.fault, state.delay)
    };
    answer(fault, delay, "application/json", document.to_string()).await
}

async fn answer(fault: Fault, delay: Duration, kind: &'static str, text: String) -> Response {
    // No time at all would still be the timer's millisecond.
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    let mut headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
    // So that a closed port is closed for those who were connected before, too.
    headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    match fault {
        Fault::Hanging => std::future::pending().await,
        Fault::Error500 => (StatusCode::INTERNAL_SERVER_ERROR, headers, "{\"status\": \"running\"}").into_response(),
        Fault::Garbage => (headers, &b"<html>\xff\x00 { not what you \"expect\n"[..]).into_response(),
        Fault::HugeBody => {
            let line = "# just a comment, one of very many\n";
            (headers, format!("{text}\n{}", line.repeat((8 << 20) / line.len()))).into_response()
        }
        _ => (headers, text).into_response(),
    }
}

async fn describe(Shared(bot): Shared<Bot>) -> Json<Value> {
    let mut state = bot.state().describe(Instant::now());
    if let Some(log) = bot.log() {
        state["log"] = log.describe();
    }
    Json(state)
}

/// Whatever the content type: `curl -d` should do.
async fn change(Shared(bot): Shared<Bot>, body: Bytes) -> Response {
    match serde_json::from_slice::<Change>(&body) {
        Ok(mut change) => {
            if let Err(refusal) = change_log(&bot, &mut change) {
                return (StatusCode::BAD_REQUEST, format!("{refusal}\n")).into_response();
            }
            bot.state().change(change);
            bot.changed.notify_waiters();
            describe(Shared(bot)).await.into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response(),
    }
}

fn change_log(bot: &Bot, change: &mut Change) -> Result<(), String> {
    let (settings, rotation) = (change.log.take(), change.rotate.take());
    if settings.is_none() && rotation.is_none() {
        return Ok(());
    }
    let mut log = bot.log().ok_or("log, rotate: there is no log; start with --log FILE")?;
    log.change(settings.unwrap_or_default());
    rotation.map_or(Ok(()), |rotation| {
        log.rotate(rotation, Instant::now())
            .map_err(|error| format!("rotate: {error}"))
    })
}

async fn recover(Shared(bot): Shared<Bot>) -> Json<Value> {
    bot.state().recover();
    bot.changed.notify_waiters();
    describe(Shared(bot)).await
}
