use std::net::SocketAddr;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::certificates::Lives;
use super::super::tests::{monitor, service};
use super::*;

fn issued() -> Certificates {
    Certificates::issue(&["127.0.0.1".into()], Lives::default(), now(), None).unwrap()
}

fn now() -> i64 {
    std::time::UNIX_EPOCH.elapsed().unwrap().as_secs().try_into().unwrap()
}

struct Running {
    address: SocketAddr,
    loaded: watch::Sender<Option<Arc<Certificates>>>,
    shutdown: CancellationToken,
    ended: tokio::task::JoinHandle<()>,
}

async fn run(certificates: Option<Certificates>) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let loaded = watch::Sender::new(certificates.map(Arc::new));
    let shutdown = CancellationToken::new();
    let router = router(service(&[monitor("bots", "rosey", "rosey")]));
    let ended = tokio::spawn(serve(
        listener,
        acceptor(loaded.subscribe()).unwrap(),
        router,
        shutdown.clone(),
    ));
    Running {
        address,
        loaded,
        shutdown,
        ended,
    }
}

/// Connects as an API server does that trusts `bundle`.
async fn connect(address: SocketAddr, bundle: &str) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider()));
    let config = config
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(Arc::new(config))
        .connect(ServerName::from(address.ip()), stream)
        .await
}

/// Sends a review on a kept-alive connection and reads head and body of the answer.
async fn ask(stream: &mut TlsStream<TcpStream>) -> String {
    let body = r#"{"request":{"uid":"u","operation":"CREATE","namespace":"elsewhere","object":{}}}"#;
    let head = format!(
        "POST /inject HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all((head + body).as_bytes()).await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("}}") {
        let mut buffer = [0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        assert!(read > 0, "closed after {answer:?}");
        answer.push_str(std::str::from_utf8(&buffer[..read]).unwrap());
    }
    answer
}

#[tokio::test]
async fn a_renewed_certificate_is_served_without_a_restart_and_without_cutting_a_connection() {
    let (first, second) = (issued(), issued());
    let running = run(Some(first.clone())).await;
    let mut early = connect(running.address, first.bundle()).await.unwrap();
    assert!(ask(&mut early).await.starts_with("HTTP/1.1 200"));
    connect(running.address, second.bundle()).await.unwrap_err();

    running.loaded.send_replace(Some(Arc::new(second.clone())));
    let mut late = connect(running.address, second.bundle()).await.unwrap();
    assert!(ask(&mut late).await.starts_with("HTTP/1.1 200"));
    assert!(ask(&mut early).await.starts_with("HTTP/1.1 200"));
    connect(running.address, first.bundle()).await.unwrap_err();
}

#[tokio::test]
async fn both_authorities_of_a_bundle_are_good_while_the_authority_changes() {
    let first = issued();
    let both = first.with_new_authority(Lives::default(), now()).unwrap();
    let second = both
        .with_new_leaf(&["127.0.0.1".into()], Lives::default(), now())
        .unwrap();
    let running = run(Some(first.clone())).await;
    for step in [&first, &both, &second] {
        running.loaded.send_replace(Some(Arc::new(step.clone())));
        connect(running.address, both.bundle()).await.unwrap();
    }
}

#[tokio::test]
async fn a_replica_without_a_certificate_refuses_and_serves_once_it_has_one() {
    let running = run(None).await;
    let certificates = issued();
    connect(running.address, certificates.bundle()).await.unwrap_err();
    running.loaded.send_replace(Some(Arc::new(certificates.clone())));
    connect(running.address, certificates.bundle()).await.unwrap();
}

#[tokio::test]
async fn after_the_signal_new_and_old_connections_are_served_for_a_while_and_then_the_server_ends() {
    let certificates = issued();
    let running = run(Some(certificates.clone())).await;
    let mut old = connect(running.address, certificates.bundle()).await.unwrap();
    assert!(!ask(&mut old).await.contains("connection: close"));
    let signalled = tokio::time::Instant::now();
    running.shutdown.cancel();
    assert!(
        ask(&mut old).await.contains("connection: close"),
        "the API server should look for another replica"
    );
    tokio::time::sleep(LINGERING / 2).await;
    let mut new = connect(running.address, certificates.bundle()).await.unwrap();
    assert!(ask(&mut new).await.starts_with("HTTP/1.1 200"));
    running.ended.await.unwrap();
    assert!(signalled.elapsed() >= LINGERING);
    TcpStream::connect(running.address).await.unwrap_err();
}
