//! One bounded GET at the bot: no redirects, no compression, a limit on headers and body, and a connection that ends with the
//! answer or with whoever waits for it.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::sidecar::config::Endpoint;

/// Where the bot answers.
#[derive(Clone, Debug)]
pub(crate) struct Bot {
    /// An address or a name.
    pub host: String,
}

/// A request that is made at each scrape.
pub(super) struct Fetch {
    bot: Bot,
    endpoint: Endpoint,
    accept: &'static str,
    limit: usize,
}

/// Why there is no answer to read.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error("{url} can't be reached: {error}")]
    Unreachable { url: String, error: std::io::Error },
    #[error("{url} did not answer in HTTP: {error}")]
    Http { url: String, error: hyper::Error },
    #[error("{url} is not an address: {error}")]
    Address { url: String, error: hyper::http::Error },
    #[error("{url} answered {status}, not 200")]
    Status { url: String, status: u16 },
    #[error("{url} answered more than {limit} bytes")]
    TooLarge { url: String, limit: usize },
    #[error("{url} answered in an encoding that was not asked for")]
    Encoded { url: String },
    #[error("{url} broke off its answer: {error}")]
    Broken { url: String, error: hyper::Error },
}

/// A connection to a host, given by its address or its name.
pub(in crate::exporter) async fn connect(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let stream = if host == "localhost" {
        // An empty image has neither a resolver nor a hosts file of its own.
        let loopback = [
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            SocketAddr::from((Ipv6Addr::LOCALHOST, port)),
        ];
        TcpStream::connect(&loopback[..]).await?
    } else {
        TcpStream::connect((host, port)).await?
    };
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Fetch {
    pub fn new(bot: &Bot, endpoint: &Endpoint, accept: &'static str, limit: usize) -> Self {
        Self {
            bot: bot.clone(),
            endpoint: endpoint.clone(),
            accept,
            limit,
        }
    }

    pub fn timeout(&self) -> Duration {
        Duration::try_from_secs_f64(self.endpoint.timeout_seconds).unwrap_or(Duration::from_secs(2))
    }

    fn authority(&self) -> String {
        let (host, port) = (&self.bot.host, self.endpoint.port);
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        connect(&self.bot.host, self.endpoint.port).await
    }

    /// The body of the answer.
    pub async fn get(&self) -> Result<Vec<u8>, FetchError> {
        let mut body = Vec::new();
        self.stream(|part| body.extend_from_slice(part)).await?;
        Ok(body)
    }

    /// Hands over the body of the answer as it arrives. It has no time limit of its own: drop it to give up.
    pub async fn stream(&self, mut take: impl FnMut(&[u8]) + Send) -> Result<(), FetchError> {
        let authority = self.authority();
        let url = format!("http://{authority}{}", self.endpoint.path);
        let request = Request::get(self.endpoint.path.as_str())
            .header(header::HOST, authority)
            .header(
                header::USER_AGENT,
                concat!("rosey-exporter/", env!("CARGO_PKG_VERSION")),
            )
            .header(header::ACCEPT, self.accept)
            .header(header::ACCEPT_ENCODING, "identity")
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| FetchError::Address {
                url: url.clone(),
                error,
            })?;
        let stream = self.connect().await.map_err(|error| FetchError::Unreachable {
            url: url.clone(),
            error,
        })?;
        let http = |error| FetchError::Http {
            url: url.clone(),
            error,
        };
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(64 << 10)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(http)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(http)?;
            if response.status() != 200 {
                return Err(FetchError::Status {
                    url: url.clone(),
                    status: response.status().as_u16(),
                });
            }
            if response
                .headers()
                .get(header::CONTENT_ENCODING)
                .is_some_and(|encoding| encoding != "identity")
            {
                return Err(FetchError::Encoded { url: url.clone() });
            }
            let mut body = response.into_body();
            let mut left = self.limit;
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| FetchError::Broken {
                    url: url.clone(),
                    error,
                })?;
                let Ok(part) = frame.into_data() else { continue };
                left = left.checked_sub(part.len()).ok_or_else(|| FetchError::TooLarge {
                    url: url.clone(),
                    limit: self.limit,
                })?;
                take(&part);
            }
            Ok(())
        };
        // The connection makes no step unless it is polled; it belongs to this future, so both end together.
        let mut connection = std::pin::pin!(connection);
        let mut exchange = std::pin::pin!(exchange);
        tokio::select! {
            answer = &mut exchange => answer,
            _ = &mut connection => exchange.await,
        }
    }
}
