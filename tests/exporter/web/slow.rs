//! Clients that come and do nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncReadExt;

use super::client::runtime;
use super::{Site, TLS};
use crate::crowds::{ENOUGH, costly_page, ok};
use crate::processes::{Exporter, PATIENCE, answers_always};

#[test]
fn a_crowd_that_does_not_finish_its_handshake_keeps_nobody_from_scraping() {
    let site = Site::new(TLS);
    let exporter = site.exporter();
    let mut crowd = Vec::new();
    for number in 0..100 {
        let mut stream = TcpStream::connect(&exporter.address).unwrap();
        if number % 2 == 0 {
            // The beginning of a handshake that goes on for 512 bytes.
            stream.write_all(&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).unwrap();
        }
        crowd.push(stream);
    }
    for client in [site.client(), site.client().over_http2()] {
        assert_eq!(client.get(&exporter, "/metrics").unwrap().status, 200);
    }
    // Each of them is gone after a while, without another that needs its place.
    for mut stream in crowd {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut rest = Vec::new();
        let end = stream.read_to_end(&mut rest);
        let timed_out = end.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        assert!(!timed_out, "a connection that says nothing is still there");
    }
}

#[test]
fn a_connection_of_http2_that_asks_for_nothing_is_closed() {
    let site = Site::new(TLS);
    let exporter = site.exporter();
    runtime().block_on(async {
        let mut stream = site.client().over_http2().connect(&exporter.address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await
            .unwrap();
        let mut said = Vec::new();
        let end = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said)).await;
        assert!(end.is_ok(), "still there");
    });
    assert_eq!(site.client().get(&exporter, "/ready").unwrap().status, 200);
}

#[test]
fn clients_of_http2_that_do_not_read_take_little_and_keep_nobody_from_scraping() {
    let site = Site::new(TLS);
    let metrics = answers_always(ok(&costly_page())).to_string();
    let arguments = [
        "--health-port",
        "1",
        "--metrics-port",
        &metrics,
        "--timeout",
        "20",
        &site.flag(),
    ];
    let exporter = Exporter::start(&arguments, &[]);
    let idle = exporter.process.memory("RssAnon");
    let peak = exporter.process.peak();
    runtime().block_on(async {
        let mut stuck = Vec::new();
        for _ in 0..8 {
            let stream = site.client().over_http2().connect(&exporter.address).await.unwrap();
            let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(1)
                .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
                .await
                .unwrap();
            tokio::spawn(connection);
            for _ in 0..4 {
                let request = Request::get("https://localhost/metrics").body(Empty::new()).unwrap();
                let answer = sender.send_request(request).await.unwrap();
                assert_eq!(answer.status(), 200);
                stuck.push(answer);
            }
        }
        for client in [site.client(), site.client().over_http2()] {
            let reply = client.ask_for(&exporter.address, "/metrics", &[]).await.unwrap();
            assert_eq!(reply.status, 200);
            assert!(reply.body.contains("\ns19{"), "the page is whole");
        }
        drop(stuck);
    });
    let most = peak.most() - idle;
    assert!(most < ENOUGH, "{most} KiB");
}
