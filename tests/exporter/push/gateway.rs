//! A Pushgateway that the test plays: it keeps what it was sent, and answers what it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};

use rcgen::{CertifiedKey, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::processes::PATIENCE;

pub struct Gateway {
    pub address: String,
    secure: bool,
    received: Mutex<Receiver<Received>>,
}

pub struct Received {
    pub method: String,
    pub path: String,
    headers: Vec<String>,
    pub body: String,
}

impl Received {
    pub fn header(&self, name: &str) -> Option<&str> {
        let headers = self.headers.iter().filter_map(|line| line.split_once(": "));
        { headers }
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value)
    }

    fn read(stream: impl Read) -> Option<Self> {
        let mut stream = BufReader::new(stream);
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok()?;
            match line.trim_end() {
                "" => break,
                line => head.push(line.to_owned()),
            }
        }
        let mut words = head.first()?.split(' ').map(str::to_owned);
        let mut received = Self {
            method: words.next()?,
            path: words.next()?,
            headers: head[1..].to_vec(),
            body: String::new(),
        };
        let length = received
            .header("content-length")
            .map_or(0, |length| length.parse().unwrap());
        stream.take(length).read_to_string(&mut received.body).ok()?;
        Some(received)
    }
}

impl Gateway {
    pub fn start(answer: impl Fn(&Received) -> String + Send + 'static) -> Self {
        Self::listen(None, answer)
    }

    pub fn start_tls(signed: &CertifiedKey<KeyPair>, answer: impl Fn(&Received) -> String + Send + 'static) -> Self {
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der()));
        let chain = vec![CertificateDer::from(signed.cert.der().to_vec())];
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self::listen(Some(Arc::new(config)), answer)
    }

    fn listen(tls: Option<Arc<ServerConfig>>, answer: impl Fn(&Received) -> String + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (sender, received) = channel();
        let secure = tls.is_some();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut stream = Stream::new(stream, tls.clone());
                let Some(request) = Received::read(&mut stream) else {
                    continue;
                };
                // What was answered has been noted before.
                let answer = answer(&request);
                if sender.send(request).is_err() {
                    return;
                }
                stream.finish(&answer);
            }
        });
        Self {
            address,
            secure,
            received: Mutex::new(received),
        }
    }

    pub fn url(&self) -> String {
        format!("http{}://{}", if self.secure { "s" } else { "" }, self.address)
    }

    /// The next request.
    pub fn next(&self) -> Received {
        self.received.lock().unwrap().recv_timeout(PATIENCE).unwrap()
    }

    /// The requests that came and were not looked at yet.
    pub fn so_far(&self) -> Vec<Received> {
        self.received.lock().unwrap().try_iter().collect()
    }
}

enum Stream {
    Plain(TcpStream),
    Secure(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Stream {
    fn new(stream: TcpStream, tls: Option<Arc<ServerConfig>>) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match tls {
            None => Self::Plain(stream),
            Some(config) => Self::Secure(Box::new(StreamOwned::new(
                ServerConnection::new(config).unwrap(),
                stream,
            ))),
        }
    }

    fn finish(mut self, answer: &str) {
        match &mut self {
            Self::Plain(stream) => drop(stream.write_all(answer.as_bytes())),
            Self::Secure(stream) => {
                let _ = stream.write_all(answer.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    }
}

impl Read for &mut Stream {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(bytes),
            Stream::Secure(stream) => stream.read(bytes),
        }
    }
}
