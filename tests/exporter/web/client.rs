//! A client that speaks TLS as it is told to, in HTTP/1.1 or HTTP/2.

use std::sync::Arc;

use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::{http1, http2};
use hyper::{HeaderMap, Request, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Authority, Pair};
use crate::processes::{Exporter, PATIENCE};

pub type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Clone)]
pub struct Client {
    roots: RootCertStore,
    pub provider: CryptoProvider,
    pub versions: Vec<&'static SupportedProtocolVersion>,
    pub protocols: Vec<&'static str>,
    identity: Option<(String, String)>,
}

#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: String,
}

impl Client {
    pub fn trusting(authority: &Authority) -> Self {
        let mut roots = RootCertStore::empty();
        let pem = authority.pem();
        roots
            .add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap())
            .unwrap();
        Self {
            roots,
            provider: ring::default_provider(),
            versions: rustls::ALL_VERSIONS.to_vec(),
            protocols: vec!["http/1.1"],
            identity: None,
        }
    }

    pub fn over_http2(self) -> Self {
        let protocols = vec!["h2", "http/1.1"];
        Self { protocols, ..self }
    }

    /// The same with a certificate.
    pub fn showing(self, pair: &Pair) -> Self {
        let identity = Some((pair.cert.clone(), pair.key.clone()));
        Self { identity, ..self }
    }

    pub async fn connect(&self, address: &str) -> std::io::Result<TlsStream<TcpStream>> {
        let builder = ClientConfig::builder_with_provider(Arc::new(self.provider.clone()))
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(self.roots.clone());
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).unwrap();
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                builder.with_client_auth_cert(vec![cert], key).unwrap()
            }
        };
        config.alpn_protocols = self.protocols.iter().map(|protocol| (*protocol).into()).collect();
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// A connection for more than one request.
    pub async fn open(&self, address: &str) -> Result<Open, Error> {
        let stream = self.connect(address).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let stream = TokioIo::new(stream);
        Ok(if http2 {
            let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            Open::Http2(sender, tokio::spawn(connection))
        } else {
            let (sender, connection) = http1::handshake(stream).await?;
            Open::Http1(sender, tokio::spawn(connection))
        })
    }

    async fn ask(&self, address: &str, request: Request<Empty<Bytes>>) -> Result<Reply, Error> {
        let stream = self.connect(address).await?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let stream = TokioIo::new(stream);
        let answer = if http2 {
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        } else {
            let (mut sender, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            sender.send_request(request).await?
        };
        let (parts, body) = answer.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Reply {
            status: parts.status.as_u16(),
            version: parts.version,
            headers: parts.headers,
            body: String::from_utf8(body.to_vec())?,
        })
    }

    /// Asks for a page over a connection of its own; the text of the error has the alert in it.
    pub fn get_with(&self, exporter: &Exporter, path: &str, headers: &[(&str, &str)]) -> Result<Reply, String> {
        runtime().block_on(self.ask_for(&exporter.address, path, headers))
    }

    pub async fn ask_for(&self, address: &str, path: &str, headers: &[(&str, &str)]) -> Result<Reply, String> {
        let mut request = Request::get(format!("https://localhost{path}")).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::new()).unwrap();
        let asked = tokio::time::timeout(PATIENCE, self.ask(address, request)).await;
        asked.unwrap().map_err(|error| {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                text = format!("{text}: {error}");
                source = error.source();
            }
            text
        })
    }

    pub fn get(&self, exporter: &Exporter, path: &str) -> Result<Reply, String> {
        self.get_with(exporter, path, &[])
    }

    /// The certificate that the exporter shows.
    pub fn certificate(&self, exporter: &Exporter) -> CertificateDer<'static> {
        let stream = runtime().block_on(self.connect(&exporter.address)).unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }
}

type Connection = JoinHandle<hyper::Result<()>>;

/// A connection that stays.
pub enum Open {
    Http1(http1::SendRequest<Empty<Bytes>>, Connection),
    Http2(http2::SendRequest<Empty<Bytes>>, Connection),
}

impl Open {
    /// The status of a page.
    pub async fn get(&mut self, path: &str) -> Result<u16, Error> {
        let request = Request::get(format!("https://localhost{path}")).header("host", "localhost");
        let request = request.body(Empty::new())?;
        let asked = async {
            match self {
                Self::Http1(sender, _) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Self::Http2(sender, _) => sender.send_request(request).await,
            }
        };
        let answer = timeout(PATIENCE, asked).await??;
        let status = answer.status().as_u16();
        answer.into_body().collect().await?;
        Ok(status)
    }

    /// Waits until the exporter has closed it.
    pub async fn until_closed(self) {
        // The sender is kept: a connection that nobody can use ends by itself.
        let (_http1, _http2, connection) = match self {
            Self::Http1(sender, connection) => (Some(sender), None, connection),
            Self::Http2(sender, connection) => (None, Some(sender), connection),
        };
        let _ = timeout(PATIENCE, connection).await.unwrap().unwrap();
    }
}

pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
