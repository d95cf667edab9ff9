//! One bounded request at a Pushgateway: no redirects, and of the answer no more than a person reads.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use http_body_util::BodyExt;
use hyper::{Method, Request, Response, Uri, header};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio_rustls::TlsConnector;

use super::access::Access;
use crate::exporter::page::CONTENT_TYPE;
use crate::exporter::sources::fetch::Names;
use crate::exporter::stream::Stream;

/// Bytes of an answer's text that are looked at.
const LOOKED_AT: usize = 1 << 10;
/// Letters of an answer's first line that are told.
const TOLD: usize = 200;

/// Why a request came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    #[error("{url} is not an address")]
    Address { url: String },
    #[error("{host} can't be reached: {error}")]
    Unreachable { host: String, error: std::io::Error },
    #[error("{host} is not believed: {error}")]
    Tls { host: String, error: std::io::Error },
    #[error("{host} did not answer in HTTP: {error}")]
    Http { host: String, error: hyper::Error },
    #[error("{host} answered {status}{}{line}", if line.is_empty() { "" } else { ": " })]
    Status { host: String, status: u16, line: String },
}

impl RequestError {
    /// What was answered, where there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Sends `body` to `url`, and is content with any answer of success. It has no time limit of its own: drop it to give up.
pub(super) async fn send(
    names: &Names,
    method: Method,
    url: &str,
    access: &Access,
    body: Body,
) -> Result<(), RequestError> {
    let address = || RequestError::Address { url: url.to_owned() };
    let uri: Uri = url.parse().map_err(|_| address())?;
    let (authority, path) = uri.authority().zip(uri.path_and_query()).ok_or_else(address)?;
    let bracketed = authority.host();
    let bare = bracketed
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(bracketed);
    let secure = uri.scheme_str() == Some("https");
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let mut request = Request::builder()
        .method(method)
        .uri(path.as_str())
        .header(header::HOST, authority.as_str())
        .header(
            header::USER_AGENT,
            concat!("rosey-exporter/", env!("CARGO_PKG_VERSION")),
        )
        .header(header::CONTENT_TYPE, CONTENT_TYPE)
        .header(header::CONNECTION, "close");
    if let Some(authorization) = &access.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    let request = request.body(body).map_err(|_| address())?;

    let host = authority.to_string();
    let stream = names
        .connect(bare, port)
        .await
        .map_err(|error| RequestError::Unreachable {
            host: host.clone(),
            error,
        })?;
    let stream: Stream = match access.tls.as_ref().filter(|_| secure) {
        None => Box::new(stream),
        Some(config) => {
            let name = ServerName::try_from(bare.to_owned()).map_err(|_| address())?;
            let connected = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
            Box::new(connected.map_err(|error| RequestError::Tls {
                host: host.clone(),
                error,
            })?)
        }
    };
    converse(stream, request, host, access).await
}

async fn converse(stream: Stream, request: Request<Body>, host: String, access: &Access) -> Result<(), RequestError> {
    let http = |error| RequestError::Http {
        host: host.clone(),
        error,
    };
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(16 << 10)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(http)?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        Err(RequestError::Status {
            host: host.clone(),
            status: status.as_u16(),
            line: first_line(&beginning(response).await, &access.secrets),
        })
    };
    // The connection makes no step unless it is polled; it belongs to this future, so both end together.
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = &mut connection => exchange.await,
    }
}

/// As much of the answer's text as there is and is looked at.
async fn beginning(response: Response<hyper::body::Incoming>) -> Vec<u8> {
    let (mut body, mut bytes) = (response.into_body(), Vec::new());
    while bytes.len() < LOOKED_AT {
        let Some(Ok(frame)) = body.frame().await else { break };
        let data = frame.into_data().unwrap_or_else(|_| Bytes::new());
        bytes.extend_from_slice(&data[..data.len().min(LOOKED_AT - bytes.len())]);
    }
    bytes
}

/// The first line, fit to be logged whatever it is.
fn first_line(text: &[u8], secrets: &[String]) -> String {
    let line = text.split(|b| *b == b'\n').next().unwrap_or_default();
    let mut line = String::from_utf8_lossy(line).trim().to_owned();
    for secret in secrets {
        line = line.replace(secret, "***");
    }
    line.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(TOLD)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_answer_one_short_line_without_secrets_is_told() {
        let secrets = ["hunter2".to_owned()];
        assert_eq!(first_line(b"", &secrets), "");
        assert_eq!(
            first_line(b"no\tway\x1b[31m, hunter2\nmore", &secrets),
            "no way [31m, ***"
        );
        assert_eq!(first_line("ü".repeat(1000).as_bytes(), &[]).chars().count(), TOLD);
        assert_eq!(first_line(b"\xff\xfe", &[]), "\u{fffd}\u{fffd}");
    }
}
