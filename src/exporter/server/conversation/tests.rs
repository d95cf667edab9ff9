use axum::Router;
use axum::body::to_bytes;
use axum::routing::get;
use futures::stream;
use http_body_util::Empty;
use hyper::Request;
use hyper::client::conn;
use hyper_util::rt::TokioExecutor;
use hyper_util::service::TowerToHyperService;
use tokio::io::DuplexStream;

use super::*;
use crate::exporter::server::connections::Connections;
use crate::exporter::web_config::Web;

fn gate(web: Web, app: Router) -> Arc<Gate> {
    Arc::new(Gate {
        web: Arc::new(web),
        app: TowerToHyperService::new(app),
    })
}

/// One that asks nothing of anybody.
fn open_gate(app: Router) -> Arc<Gate> {
    gate(Web::new(None, "/".into()), app)
}

/// A link from somewhere, in the clear.
fn link() -> Link {
    Link {
        peer: SocketAddr::from(([10, 0, 0, 1], 1234)),
        asked: None,
        verified: false,
    }
}

/// The client's end of a conversation.
fn conversation<C>(connections: &Arc<Connections>, hold: impl FnOnce(DuplexStream, Place) -> C) -> DuplexStream
where
    C: Future<Output = ()> + Send + 'static,
{
    let (client, stream) = tokio::io::duplex(1 << 10);
    connections.admit(link().peer.ip(), |place| {
        tokio::spawn(hold(stream, place)).abort_handle()
    });
    client
}

fn ask(path: &str) -> Request<Empty<Bytes>> {
    let request = Request::get(format!("http://localhost{path}")).header("host", "localhost");
    request.body(Empty::new()).unwrap()
}

#[tokio::test]
async fn a_connection_is_busy_until_the_whole_answer_is_on_its_way() {
    // In pieces, as a page comes.
    let piece = Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 16 << 10]));
    let page = async || Body::from_stream(stream::iter(std::iter::repeat_n(piece, 64)));
    let gate = open_gate(Router::new().route("/", get(page)));
    let connections = Arc::new(Connections::default());
    let mut client = conversation(&connections, |stream, place| {
        in_http1(Box::new(stream), link(), gate, place)
    });
    client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut part = [0; 1 << 10];
    let mut left = 1 << 20;
    while left > 0 {
        left -= client.read(&mut part).await.unwrap().min(left);
        // The last of it waits in the buffers of the connection alone.
        assert!(left < 256 << 10 || connections.busy() == 1, "{left} bytes are left");
    }
    while connections.busy() > 0 {
        tokio::task::yield_now().await;
    }
}

/// How long the slow page takes.
const SLOW: Duration = Duration::from_secs(60);
/// What is left of a connection's life when the slow page is asked for.
const LEFT: Duration = Duration::from_secs(30);

fn pages() -> Arc<Gate> {
    let slow = async || {
        sleep(SLOW).await;
        "at last"
    };
    open_gate(Router::new().route("/", get("at once")).route("/slow", get(slow)))
}

/// Waits until a connection that asked at once is about to be too old, and asks now and then, as scrapers do.
async fn until_old(mut asked: impl AsyncFnMut()) {
    let age = SHORT_TIME + CONNECTION_AGE;
    let pauses = 9;
    for _ in 0..pauses {
        asked().await;
        sleep(age.saturating_sub(LEFT) / pauses).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_too_old_is_closed_after_its_current_answer() {
    let client = conversation(&Arc::default(), |stream, place| {
        in_http1(Box::new(stream), link(), pages(), place)
    });
    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(client)).await.unwrap();
    let connection = tokio::spawn(connection);
    let closes = |answer: &Response<Incoming>| answer.headers().contains_key(header::CONNECTION);
    until_old(async || {
        sender.ready().await.unwrap();
        let answer = sender.send_request(ask("/")).await.unwrap();
        assert!(!closes(&answer), "not yet");
    })
    .await;
    let answer = sender.send_request(ask("/slow")).await.unwrap();
    assert!(closes(&answer), "whoever reads it knows that it is the last");
    let body = to_bytes(Body::new(answer.into_body()), 100).await.unwrap();
    assert_eq!(body, "at last");
    connection.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_of_http2_that_is_too_old_ends_with_its_current_answer() {
    let client = conversation(&Arc::default(), |stream, place| {
        in_http2(stream, link(), pages(), place)
    });
    let executor = TokioExecutor::new();
    let (mut sender, connection) = conn::http2::handshake(executor, TokioIo::new(client)).await.unwrap();
    let connection = tokio::spawn(connection);
    until_old(async || assert_eq!(sender.send_request(ask("/")).await.unwrap().status(), 200)).await;
    let slow = sender.send_request(ask("/slow"));
    let late = async {
        sleep(LEFT + LEFT / 2).await;
        sender.clone().send_request(ask("/")).await
    };
    let (slow, late) = tokio::join!(slow, late);
    assert!(late.is_err(), "no more than what it began");
    let body = to_bytes(Body::new(slow.unwrap().into_body()), 100).await.unwrap();
    assert_eq!(body, "at last");
    connection.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_too_old_and_has_nothing_to_say_is_closed_at_once() {
    let client = conversation(&Arc::default(), |stream, place| {
        in_http1(Box::new(stream), link(), pages(), place)
    });
    let start = tokio::time::Instant::now();
    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(client)).await.unwrap();
    let connection = tokio::spawn(connection);
    until_old(async || {
        sender.ready().await.unwrap();
        sender.send_request(ask("/")).await.unwrap();
    })
    .await;
    connection.await.unwrap().unwrap();
    assert_eq!(start.elapsed().as_secs(), (SHORT_TIME + CONNECTION_AGE).as_secs());
}

#[tokio::test]
async fn the_web_configuration_is_read_again_for_each_request_of_a_connection() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let web = Web::new(Some(file.path().to_owned()), "/".into());
    while web.rules().is_none() {
        web.refresh().await;
    }
    let gate = gate(web, Router::new().route("/", get("")));
    let client = conversation(&Arc::default(), |stream, place| {
        in_http1(Box::new(stream), link(), gate, place)
    });
    let (mut sender, connection) = conn::http1::handshake(TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let users = format!("basic_auth_users: {{alice: {}}}", bcrypt::hash("alice123", 4).unwrap());
    for (text, status) in [
        (users.as_str(), 401),
        ("rate_limit:", 200),
        ("basic_auth_users: [", 500),
    ] {
        std::fs::write(&file, text).unwrap();
        // Nobody else looks at the file. A look that takes longer than a request waits is over with the next one.
        let asked = async {
            loop {
                sender.ready().await.unwrap();
                let answer = sender.send_request(ask("/")).await.unwrap();
                if answer.status() == status {
                    return;
                }
            }
        };
        assert!(timeout(SHORT_TIME, asked).await.is_ok(), "{text}");
    }
}
