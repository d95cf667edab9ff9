//! A configuration that changes while the exporter is scraped.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::ScopedJoinHandle;

use super::processes::{Exporter, FakeBot, PATIENCE, Page, eventually};

/// Publishes as kubelet does: a new folder, and a link that is swapped.
fn publish(folder: &Path, version: usize, text: &str) {
    let name = format!("..{version}");
    std::fs::create_dir(folder.join(&name)).unwrap();
    std::fs::write(folder.join(&name).join("exporter.yaml"), text).unwrap();
    std::os::unix::fs::symlink(&name, folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    if let Some(old) = version.checked_sub(1) {
        std::fs::remove_dir_all(folder.join(format!("..{old}"))).unwrap();
    }
}

/// Scrapes one after the other over one connection, for as long as it is wanted.
fn scrape_on(address: &str, wanted: &AtomicBool, judge: impl Fn(&Page)) {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while wanted.load(Ordering::Relaxed) {
        { &stream }
            .write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
            .unwrap();
        let (mut line, mut length) = (String::new(), 0);
        reader.read_line(&mut line).unwrap();
        assert_eq!(line, "HTTP/1.1 200 OK\r\n");
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        judge(&Page(String::from_utf8(body).unwrap()));
    }
}

#[test]
fn no_scrape_is_dropped_or_mixed_while_the_configuration_is_swapped() {
    let bot = FakeBot::start(&[]);
    let folder = tempfile::tempdir().unwrap();
    let port = bot.port;
    let text = |version: usize| match version % 4 {
        0 => {
            format!("environment: even\nhealth: {{port: {port}, path: /api/health}}\ndisk: [{{label: even, path: /}}]")
        }
        2 => format!(
            "environment: odd\nhealth: {{port: {port}, path: /api/health}}\nbackups: {{path: /}}\nmetrics: {{port: {port}, path: /metrics}}"
        ),
        // Refused; the one before stays.
        _ => format!("environment: bad\nhealth: {{port: {port}, path: /api/health}}\nprot: 1"),
    };
    publish(folder.path(), 0, &text(0));
    std::os::unix::fs::symlink("..data/exporter.yaml", folder.path().join("exporter.yaml")).unwrap();
    let file = folder.path().join("exporter.yaml");
    let exporter = Exporter::start(&["--config", file.to_str().unwrap()], &[]);
    eventually("the first is read", || {
        (exporter.get("/ready").status == 200).then_some(())
    });
    let (wanted, even, odd) = (AtomicBool::new(true), AtomicUsize::new(0), AtomicUsize::new(0));
    let judge = |page: &Page| {
        let up = page.series("rosey_bot_up{");
        let (size, backups) = (page.series("rosey_disk_size_bytes"), page.series("rosey_backup_count"));
        let passed = page.series("rosey_exporter_source_up{source=\"metrics\"}").len();
        match up.as_slice() {
            ["rosey_bot_up{environment=\"even\"}"] => {
                assert_eq!(size, ["rosey_disk_size_bytes{path=\"even\",environment=\"even\"}"]);
                assert_eq!((backups.len(), passed), (0, 0), "{}", page.0);
                even.fetch_add(1, Ordering::Relaxed);
            }
            ["rosey_bot_up{environment=\"odd\"}"] => {
                assert_eq!(backups, ["rosey_backup_count{environment=\"odd\"}"]);
                assert_eq!((size.len(), passed), (0, 1), "{}", page.0);
                odd.fetch_add(1, Ordering::Relaxed);
            }
            _ => panic!("neither one nor the other:\n{}", page.0),
        }
        assert_eq!(page.value(up[0]), Some(1.0), "{}", page.0);
    };
    std::thread::scope(|scope| {
        let scrapers = [0; 2].map(|_| scope.spawn(|| scrape_on(&exporter.address, &wanted, judge)));
        for version in 1..=60 {
            publish(folder.path(), version, &text(version));
            exporter.look_again();
            // Each is seen by somebody before the next comes; where a scraper failed, the test does so below.
            let seen = even.load(Ordering::Relaxed) + odd.load(Ordering::Relaxed);
            while even.load(Ordering::Relaxed) + odd.load(Ordering::Relaxed) < seen + 8
                && !scrapers.iter().any(ScopedJoinHandle::is_finished)
            {
                std::thread::yield_now();
            }
        }
        wanted.store(false, Ordering::Relaxed);
        for scraper in scrapers {
            scraper.join().unwrap();
        }
    });
    assert!(even.into_inner() > 50 && odd.into_inner() > 50);
    eventually("the last is read", || {
        let page = exporter.scrape();
        let (up, reloaded) = (
            "rosey_bot_up{environment=\"even\"}",
            "rosey_exporter_config_last_reload_successful",
        );
        (page.value(up) == Some(1.0) && page.value(reloaded) == Some(1.0)).then_some(())
    });
}
