//! One connection from its first byte to its last: in the clear or through TLS, in HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::connections::{Busy, Place};
use super::gate::{Gate, Link};
use crate::exporter::locked;
use crate::exporter::stream::Stream;

/// A connection is closed after its current request when it is this old, so that none is held for ever.
const CONNECTION_AGE: Duration = Duration::from_secs(300);
/// How long a request, or the pause between two of them, may take.
const REQUEST_TIME: Duration = Duration::from_secs(75);
/// How long a new connection may take for its handshake, and wait with its first request, and a request with its body.
const SHORT_TIME: Duration = Duration::from_secs(10);
/// How long a client that spoke to us in the clear may take to read that this is not the way.
const LAST_WORD: Duration = Duration::from_secs(1);
/// Bytes that wait for a client which does not read, at each of the places where they may.
const SEND_BUFFER: usize = 16 << 10;
/// Requests at a time on a connection. A scraper has one; a browser has a few.
const STREAMS: u32 = 4;
/// Bytes of a request that are taken before its handler asks for them; the largest one has 8 KiB.
const WINDOW: u32 = 64 << 10;
/// Bytes of a request's headers.
const HEADERS: u32 = 16 << 10;
/// How long a connection may be silent before it is asked whether it is still there, and may take to answer.
const PING: Duration = Duration::from_secs(30);

/// What a client is told that speaks HTTP where TLS is spoken; the words are those of Go's server, which people search for.
const WRONG_SCHEME: &str = "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

/// Holds a conversation. It ends with this future, and all that belongs to it.
pub(super) async fn converse(stream: TcpStream, peer: SocketAddr, gate: Arc<Gate>, place: Place) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let plain = Link {
        peer,
        asked: None,
        verified: false,
    };
    if !gate.web.is_given() {
        return in_http1(Box::new(stream), plain, gate, place).await;
    }
    // The rules are read when somebody speaks, and not when the connection is there: that is the moment at which they count.
    let mut first = [0];
    let Ok(Ok(1)) = timeout(SHORT_TIME, stream.peek(&mut first)).await else {
        return;
    };
    gate.web.refresh().await;
    // The last ones that were good: what is wrong with newer ones is told by the answer to a request.
    let Some(rules) = gate.web.rules() else { return };
    let Some(tls) = rules.tls.clone() else {
        return in_http1(Box::new(stream), plain, gate, place).await;
    };
    if first[0].is_ascii_alphabetic() {
        return wrong_scheme(stream).await;
    }
    let acceptor = TlsAcceptor::from(tls);
    let accepted = acceptor.accept_with(stream, |connection| connection.set_buffer_limit(Some(SEND_BUFFER)));
    let stream = match timeout(SHORT_TIME, accepted).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "the handshake failed"),
        Err(_) => return,
    };
    let (_, session) = stream.get_ref();
    let shown = session.peer_certificates().is_some_and(|chain| !chain.is_empty());
    let link = Link {
        peer,
        asked: rules.asked,
        verified: shown && rules.verify_clients(),
    };
    if session.alpn_protocol() == Some(b"h2") {
        in_http2(stream, link, gate, place).await;
    } else {
        in_http1(Box::new(stream), link, gate, place).await;
    }
}

async fn wrong_scheme(mut stream: TcpStream) {
    let tell = async {
        stream.write_all(WRONG_SCHEME.as_bytes()).await?;
        stream.shutdown().await?;
        // What is closed unread makes the kernel reset the connection, and the answer may be lost.
        let mut rest = [0; 1024];
        while stream.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let _ = timeout(LAST_WORD, tell).await;
}

async fn in_http1(stream: Stream, link: Link, gate: Arc<Gate>, place: Place) {
    let (place, last) = (Arc::new(place), Arc::new(Notify::new()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        // It bounds the head of a request, too, as HEADERS does in HTTP/2.
        .max_buf_size(SEND_BUFFER)
        .serve_connection(TokioIo::new(stream), answers(link, gate, place.clone(), last.clone()));
    until_over(connection, http1::Connection::graceful_shutdown, &place, &last).await;
}

async fn in_http2<S>(stream: S, link: Link, gate: Arc<Gate>, place: Place)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let (place, last) = (Arc::new(place), Arc::new(Notify::new()));
    // Ends with this connection, whoever holds an executor.
    let streams = Arc::new(Mutex::new(JoinSet::new()));
    let connection = http2::Builder::new(Streams(Arc::downgrade(&streams)))
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING)
        .keep_alive_timeout(PING)
        .serve_connection(TokioIo::new(stream), answers(link, gate, place.clone(), last.clone()));
    until_over(connection, http2::Connection::graceful_shutdown, &place, &last).await;
}

/// Answers the requests of a connection, and tells `last` of an answer after which it is to be closed: HTTP/2 has no header for that.
fn answers(
    link: Link,
    gate: Arc<Gate>,
    place: Arc<Place>,
    last: Arc<Notify>,
) -> impl Service<hyper::Request<Incoming>, Response = Response, Error = Infallible, Future: Send + 'static> {
    service_fn(move |request: hyper::Request<Incoming>| {
        let (gate, busy, last) = (gate.clone(), place.busy(), last.clone());
        let only_asks = matches!(*request.method(), Method::GET | Method::HEAD);
        let limit = if only_asks { REQUEST_TIME } else { SHORT_TIME };
        async move {
            let answer = timeout(limit, gate.answer(request, link)).await;
            let answer = answer.unwrap_or_else(|_| StatusCode::REQUEST_TIMEOUT.into_response());
            let answer = answer.map(|body| Body::new(Sending { body, _busy: busy }));
            if answer
                .headers()
                .get(header::CONNECTION)
                .is_some_and(|value| value == "close")
            {
                last.notify_one();
            }
            Ok(answer)
        }
    })
}

/// The body of an answer. For as long as there is more of it to send, its connection is busy.
struct Sending {
    body: Body,
    _busy: Busy,
}

impl HttpBody for Sending {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Goes on with a connection for as long as it may.
async fn until_over<C: Future>(connection: C, last_request: impl FnOnce(Pin<&mut C>), place: &Place, last: &Notify) {
    let mut connection = pin!(connection);
    let idle = async {
        sleep(SHORT_TIME).await;
        if place.was_asked() {
            sleep(CONNECTION_AGE).await;
        }
    };
    tokio::select! {
        _ = connection.as_mut() => return,
        () = last.notified() => {}
        () = idle => {}
    }
    // Nobody who connects in order to ask something waits with it.
    if place.was_asked() {
        last_request(connection.as_mut());
        let _ = timeout(REQUEST_TIME, connection).await;
    }
}

/// Runs the streams of one connection, each for as long as one request and its answer may take.
#[derive(Clone)]
struct Streams(Weak<Mutex<JoinSet<()>>>);

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
{
    fn execute(&self, stream: F) {
        if let Some(streams) = self.0.upgrade() {
            let mut streams = locked(&streams);
            while streams.try_join_next().is_some() {}
            streams.spawn(async move {
                // Dropping it resets the stream of a client that does not read.
                let _ = timeout(2 * REQUEST_TIME, stream).await;
            });
        }
    }
}

#[cfg(test)]
mod tests;
