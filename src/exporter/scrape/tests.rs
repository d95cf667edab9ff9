use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;

use futures::future::join_all;

use super::*;
use crate::exporter::sources::fetch::Names;

#[tokio::test]
async fn a_scrape_that_outlives_its_configuration_says_nothing_of_the_next() {
    let bot = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = bot.local_addr().unwrap().port();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&file, format!("health: {{port: {port}, path: /, timeoutSeconds: 60}}")).unwrap();
    let configuration = Configuration::file(file.path().to_owned());
    let exporter = Arc::new(Exporter::new(configuration, Bot::at("127.0.0.1"), "/".into()));
    let until_read = async |done: fn(&Config) -> bool| {
        while !exporter.setup().borrow().config.as_deref().is_some_and(done) {
            exporter.refresh().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    until_read(|config| config.health.is_some()).await;

    let scraped = exporter.clone();
    let scrape = tokio::spawn(async move { scraped.scrape(Some(Duration::from_secs(60))).await });
    let (asked, _) = bot.accept().await.unwrap();
    std::fs::write(&file, "environment: prod").unwrap();
    until_read(|config| config.health.is_none()).await;
    drop(asked);
    scrape.await.unwrap();
    assert!(exporter.problems().is_empty(), "{:?}", exporter.problems());
}

#[tokio::test(start_paused = true)]
async fn a_look_at_the_configuration_serves_whoever_comes_at_once() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let exporter = Exporter::new(
        Configuration::file(file.path().to_owned()),
        Bot::at("127.0.0.1"),
        "/".into(),
    );
    let environment = || exporter.setup().borrow().config.as_ref()?.environment.clone();
    for (content, seen) in [("old", Some("old")), ("new", Some("old"))] {
        std::fs::write(&file, format!("environment: {content}")).unwrap();
        join_all((0..8).map(|_| exporter.refresh())).await;
        assert_eq!(environment().as_deref(), seen);
    }
    tokio::time::advance(LOOK_INTERVAL).await;
    exporter.refresh().await;
    assert_eq!(environment().as_deref(), Some("new"));
}

#[test]
fn a_source_that_the_configuration_leaves_as_it_is_goes_on() {
    let exporter = Exporter::new(
        Configuration::fixed(Config::default()),
        Bot::at("127.0.0.1"),
        "/".into(),
    );
    let config = |text: &str| -> Config { serde_saphyr::from_str(text).unwrap() };
    let names = |lines: &[Arc<Line>]| -> Vec<_> { lines.iter().map(|line| line.source.name()).collect() };
    let first = config("health: {port: 8000, path: /}\nmetrics: {port: 8000, path: /m}\nbackups: {path: /b}");
    let before = exporter.lines(&first, &[]);
    let second = config("health: {port: 8000, path: /}\nmetrics: {port: 8000, path: /m}\nbackups: {path: /c}");
    let after = exporter.lines(&second, &before);
    assert_eq!(names(&after), ["health", "backups", "metrics"]);
    let same = |at: usize| Arc::ptr_eq(&before[at], &after[at]);
    assert_eq!([same(0), same(1), same(2)], [true, false, true]);

    // Our names are reserved for as long as we answer for them.
    let third = config("metrics: {port: 8000, path: /m}");
    assert!(!Arc::ptr_eq(&exporter.lines(&third, &after)[0], &after[2]));
}

#[test]
fn the_way_back_gets_its_share_of_the_deadline() {
    let milliseconds = |limit: u64| budget(Some(Duration::from_millis(limit))).as_millis();
    assert_eq!([10_000, 1_000, 600, 0].map(milliseconds), [9_500, 500, 300, 0]);
    assert_eq!(budget(None).as_millis(), 9_500);
}

#[tokio::test]
async fn a_name_server_that_never_answers_holds_one_thread_whatever_is_configured() {
    let (release, held) = channel::<()>();
    let held = Mutex::new(held);
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let names = Names::looked_up(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        let _ = locked(&held).recv();
        Err(std::io::ErrorKind::NotFound.into())
    });
    let bot = Bot::known_to(names, "bot");
    let file = tempfile::NamedTempFile::new().unwrap();
    let exporter = Exporter::new(Configuration::file(file.path().to_owned()), bot, "/".into());
    for port in [8001, 8002, 8003] {
        let endpoint = format!("{{port: {port}, path: /}}");
        let config = format!("health: {endpoint}\nmetrics: {endpoint}\nplugins: {endpoint}");
        std::fs::write(&file, config).unwrap();
        let in_force = || {
            let config = exporter.setup().borrow().config.clone();
            config
                .and_then(|config| config.health.clone())
                .map(|health| health.port)
        };
        while in_force() != Some(port) {
            exporter.refresh().await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        exporter.scrape(Some(Duration::from_millis(40))).await;
        for source in ["health", "metrics", "plugins"] {
            let problem = exporter.problems()[source].clone();
            assert!(
                problem.is_some_and(|problem| problem.contains("no answer within")),
                "{source}"
            );
        }
    }
    while asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    drop(release);
}
