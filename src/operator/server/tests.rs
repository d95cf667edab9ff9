use axum::body::Body;
use axum::http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use super::*;
use crate::operator::area::Area;

fn pages(waiting: &[&'static str]) -> Pages {
    Pages {
        caches: Caches::new(waiting, &[], &[]),
        metrics: Arc::new(Metrics::new().unwrap()),
        shutdown: CancellationToken::new(),
        written: Written::default(),
    }
}

async fn get_page(pages: &Pages, path: &str) -> (StatusCode, String) {
    let request = Request::get(path).body(Body::empty()).unwrap();
    let response = router(pages.clone()).oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_finish_its_question_is_sent_away() {
    let pages = pages(&[]);
    let asked = async |question: &str| {
        let (mut client, server) = tokio::io::duplex(1024);
        let started = Instant::now();
        let answered = async {
            client.write_all(question.as_bytes()).await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let ((), answer) = tokio::join!(connection(server, router(pages.clone())), answered);
        (answer, started.elapsed())
    };
    let (answer, took) = asked("GET /healthz HTTP/1.1\r\n").await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!((HEADERS..LIFE).contains(&took), "{took:?}");
    let (answer, took) = asked("GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(took < HEADERS, "{took:?}");
}

#[tokio::test]
async fn a_replica_is_ready_once_its_caches_are_full_and_until_it_is_told_to_end() {
    let pages = pages(&["pods", "namespaces"]);
    let waiting = (
        StatusCode::SERVICE_UNAVAILABLE,
        "waiting for namespaces, pods\n".to_owned(),
    );
    assert_eq!(get_page(&pages, "/readyz").await, waiting);
    pages.caches.filled("pods", &Area::Cluster);
    assert_eq!(get_page(&pages, "/readyz").await.1, "waiting for namespaces\n");
    pages.caches.filled("namespaces", &Area::Cluster);
    assert_eq!(get_page(&pages, "/readyz").await, (StatusCode::OK, "ok\n".to_owned()));
    pages.shutdown.cancel();
    let ending = (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n".to_owned());
    assert_eq!(get_page(&pages, "/readyz").await, ending);
    assert_eq!(get_page(&pages, "/healthz").await.0, StatusCode::OK, "it lives on");
}

#[tokio::test(start_paused = true)]
async fn the_metrics_are_written_once_a_second_however_many_ask() {
    let pages = pages(&[]);
    let failures = async || {
        let (status, text) = get_page(&pages, "/metrics").await;
        assert_eq!(status, StatusCode::OK);
        let line = text.lines().find(|line| line.contains(r#"category="watch""#));
        line.map(str::to_owned)
    };
    assert_eq!(failures().await, None);
    pages.metrics.failed("watch");
    assert_eq!(failures().await, None, "the same text");
    tokio::time::advance(Written::FRESH).await;
    assert!(failures().await.unwrap().ends_with(" 1"));
}

#[tokio::test]
async fn whoever_comes_when_all_places_are_taken_waits_for_one_to_be_free() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let end = CancellationToken::new();
    let served = tokio::spawn(accept(listener, router(pages(&[])), end.clone()));
    let question = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut buffer = [0; 256];
    let mut kept = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(question).await.unwrap();
        assert!(client.read(&mut buffer).await.unwrap() > 0);
        kept.push(client);
    }
    let mut late = TcpStream::connect(address).await.unwrap();
    late.write_all(question).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_millis(300), late.read(&mut buffer)).await;
    assert!(answer.is_err(), "answered beyond the limit");
    kept.pop();
    assert!(late.read(&mut buffer).await.unwrap() > 0);
    end.cancel();
    served.await.unwrap();
}
