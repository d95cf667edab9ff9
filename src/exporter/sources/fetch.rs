//! One bounded GET at the bot: no redirects, no compression, a limit on headers and body, and a connection that ends with the
//! answer or with whoever waits for it. None is kept: a bot that serves one connection at a time, as Python's `HTTPServer` does, would
//! serve nobody else meanwhile, and a kubelet that waits for its turn restarts it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::exporter::locked;
use crate::exporter::stream::Stream;
use crate::sidecar::config::Endpoint;

/// Where the bot answers.
#[derive(Clone)]
pub(crate) struct Bot {
    /// An address or a name.
    pub host: String,
    /// Shared by all who ask this bot, under whatever configuration.
    names: Arc<Names>,
}

impl Bot {
    /// The one on this host, whose name the system knows.
    pub fn at(host: impl Into<String>) -> Self {
        Self::known_to(Names::new(), host)
    }

    /// The one on a host whose name is looked up in `names`.
    pub fn known_to(names: Names, host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            names: Arc::new(names),
        }
    }
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

type Found = Result<Vec<IpAddr>, Arc<std::io::Error>>;
type LookUp = dyn Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync;

/// The addresses of names, looked up one at a time: a look-up that no name server answers can't be ended, and each further one
/// would hold a thread too. Whoever asks for the same name meanwhile gets the same answer.
pub(in crate::exporter) struct Names {
    look_up: Arc<LookUp>,
    last: Mutex<Option<Asked>>,
}

/// A look-up that was begun.
#[derive(Clone)]
struct Asked {
    host: String,
    /// None as long as it is on its way.
    found: watch::Receiver<Option<Found>>,
}

impl Asked {
    fn is_under_way(&self) -> bool {
        // Without a sender it broke off.
        self.found.borrow().is_none() && self.found.has_changed().is_ok()
    }
}

impl Names {
    /// As the system has them.
    pub fn new() -> Self {
        Self::looked_up(|host| {
            let addresses = (host, 0).to_socket_addrs()?;
            Ok(addresses.map(|address| address.ip()).collect())
        })
    }

    /// As `look_up` finds them, which may take its time.
    pub fn looked_up(look_up: impl Fn(&str) -> std::io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Self {
            look_up: Arc::new(look_up),
            last: Mutex::default(),
        }
    }

    /// The look-up that is on its way, or one for `host`, which begins now: what was found before may be old.
    fn ask(&self, host: &str) -> Asked {
        let mut last = locked(&self.last);
        if let Some(asked) = last.as_ref().filter(|asked| asked.is_under_way()) {
            return asked.clone();
        }
        let (answer, found) = watch::channel(None);
        let (look_up, host) = (self.look_up.clone(), host.to_owned());
        let asked = Asked {
            host: host.clone(),
            found,
        };
        tokio::task::spawn_blocking(move || answer.send_replace(Some(look_up(&host).map_err(Arc::new))));
        last.insert(asked).clone()
    }

    async fn find(&self, host: &str) -> std::io::Result<Vec<IpAddr>> {
        if host == "localhost" {
            // An empty image has neither a resolver nor a hosts file of its own.
            return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
        }
        if let Ok(address) = host.parse() {
            return Ok(vec![address]);
        }
        loop {
            let mut asked = self.ask(host);
            let found = asked.found.wait_for(Option::is_some).await;
            let found = found.map_err(std::io::Error::other)?.clone();
            if let Some(found) = found.filter(|_| asked.host == host) {
                return found.map_err(|error| std::io::Error::new(error.kind(), error));
            }
        }
    }

    /// A connection to a host, given by its address or its name.
    pub async fn connect(&self, host: &str, port: u16) -> std::io::Result<TcpStream> {
        let addresses = self.find(host).await?;
        let addresses: Vec<_> = addresses.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        let stream = TcpStream::connect(&addresses[..]).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
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
        self.bot.names.connect(&self.bot.host, self.endpoint.port).await
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
            .body(Body::empty())
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
            .handshake(TokioIo::new(Box::new(stream) as Stream))
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc::channel;

    use super::*;

    #[tokio::test]
    async fn a_name_server_that_never_answers_holds_one_thread() {
        let (release, held) = channel::<()>();
        let held = std::sync::Mutex::new(held);
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let names = Names::looked_up(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = held.lock().unwrap().recv();
            Ok(vec![Ipv4Addr::LOCALHOST.into()])
        });
        let bot = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = bot.local_addr().unwrap().port();
        for host in ["bot", "bot", "another"] {
            let waited = tokio::time::timeout(Duration::from_millis(20), names.connect(host, port)).await;
            assert!(waited.is_err(), "{host}");
            // What is an address needs nobody to look it up.
            for host in ["127.0.0.1", "localhost"] {
                names.connect(host, port).await.unwrap();
            }
        }
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
        drop(release);
        names.connect("another", port).await.unwrap();
        // Looked up anew each time.
        names.connect("another", port).await.unwrap();
        assert!(asked.load(Ordering::SeqCst) > 2);
    }

    #[tokio::test]
    async fn who_asks_for_a_name_while_it_is_looked_up_gets_the_same_answer() {
        let (answer, answers) = channel::<()>();
        let answers = std::sync::Mutex::new(answers);
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let names = Names::looked_up(move |host| {
            counted.fetch_add(1, Ordering::SeqCst);
            let _ = answers.lock().unwrap().recv();
            Err(std::io::Error::other(format!("no name server knows {host}")))
        });
        let answered = async { drop(answer) };
        let (first, second, ()) = tokio::join!(names.find("bot"), names.find("bot"), answered);
        for found in [first, second] {
            assert_eq!(found.unwrap_err().to_string(), "no name server knows bot");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn what_was_found_when_nobody_waited_any_more_is_looked_up_again() {
        let (answer, answers) = channel::<Ipv4Addr>();
        let answers = std::sync::Mutex::new(answers);
        let names = Names::looked_up(move |_| Ok(vec![answers.lock().unwrap().recv().unwrap().into()]));
        assert!(
            tokio::time::timeout(Duration::from_millis(20), names.find("bot"))
                .await
                .is_err()
        );
        answer.send(Ipv4Addr::new(10, 0, 0, 1)).unwrap();
        while locked(&names.last).as_ref().unwrap().is_under_way() {
            tokio::task::yield_now().await;
        }
        answer.send(Ipv4Addr::LOCALHOST).unwrap();
        assert_eq!(names.find("bot").await.unwrap(), [Ipv4Addr::LOCALHOST]);
    }
}
