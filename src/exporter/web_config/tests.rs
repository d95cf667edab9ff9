mod contents;

use super::*;

/// A folder with a certificate, its key and another key in it.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::KeyPair::generate().unwrap();
    for (name, text) in [
        ("server.crt", own.cert.pem()),
        ("server.key", own.signing_key.serialize_pem()),
        ("other.key", other.serialize_pem()),
        ("nothing", String::new()),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

const TLS: &str = "cert_file: server.crt, key_file: server.key";

/// What is made of a file in that folder.
fn made(folder: &Path, text: &str) -> Result<Arc<Rules>, String> {
    let path = folder.join("web.yml");
    std::fs::write(&path, text).unwrap();
    match look(&path, Path::new("/"), None) {
        Look::Changed(_, outcome) => outcome,
        Look::Unreadable(reason) => Err(reason),
        Look::Unchanged => panic!("{text}: not looked at"),
    }
}

#[tokio::test]
async fn what_changes_takes_effect_with_the_next_look_and_what_is_wrong_closes_the_door() {
    let folder = folder();
    let path = |name: &str| folder.path().join(name);
    let link = |text: &str| {
        let version = path(&format!("version-{}", text.len()));
        std::fs::create_dir_all(&version).unwrap();
        std::fs::write(version.join("web.yml"), text).unwrap();
        std::os::unix::fs::symlink(version.join("web.yml"), path("new")).unwrap();
        std::fs::rename(path("new"), path("web.yml")).unwrap();
    };
    let web = Web::new(Some(path("web.yml")), "/".into());
    let looked = async || {
        web.refresh().await;
        while locked(&web.state).hangs {
            tokio::time::sleep(Duration::from_millis(5)).await; // a slow machine may need more than one look
            web.refresh().await;
        }
        web.current()
    };
    assert!(looked().await.is_none());
    assert!(web.rules().is_none(), "nothing may be served yet");
    assert_eq!(web.last_reload_successful(), Some(false));

    let hash = bcrypt::hash("x", 4).unwrap();
    link("http_server_config: {http2: true}");
    assert!(!looked().await.unwrap().have_users());
    link(&format!("basic_auth_users: {{alice: {hash}}}"));
    let with_users = looked().await.unwrap();
    assert!(with_users.have_users());
    assert!(
        Arc::ptr_eq(&with_users, &looked().await.unwrap()),
        "nothing has changed"
    );

    // What is wrong, or gone, or half written, lets nobody in.
    for text in ["basic_auth_users: [", "basic_auth_users: {alice: x}", "", "# empty\n"] {
        link(text);
        assert!(looked().await.is_none(), "{text}");
        assert_eq!(web.last_reload_successful(), Some(false), "{text}");
    }
    std::fs::remove_file(path("web.yml")).unwrap();
    assert!(looked().await.is_none());
    assert!(web.rules().unwrap().have_users());
    link("basic_auth_users: {}");
    assert!(!looked().await.unwrap().have_users(), "taken away on purpose");

    // TLS may come, and stays.
    let whole = |name: &str| format!("/{}", path(name).display());
    let tls = format!(
        "tls_server_config: {{cert_file: {}, key_file: {}}}",
        whole("server.crt"),
        whole("server.key")
    );
    link(&tls);
    assert!(looked().await.unwrap().tls.is_some());
    link("http_server_config: {http2: true}");
    assert!(looked().await.is_none());
    assert!(
        locked(&web.state)
            .refused
            .as_ref()
            .unwrap()
            .starts_with("tls_server_config: was taken away")
    );
    assert!(web.rules().unwrap().tls.is_some(), "handshakes go on");
    link(&tls);
    let before = looked().await.unwrap();

    // A new certificate beside an old file is one as well; with the wrong key it is none.
    let renewed = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(path("server.crt"), renewed.cert.pem()).unwrap();
    assert!(looked().await.is_none());
    std::fs::write(path("server.key"), renewed.signing_key.serialize_pem()).unwrap();
    assert!(!Arc::ptr_eq(&before, &looked().await.unwrap()));
    assert_eq!(web.last_reload_successful(), Some(true));
}

#[tokio::test]
async fn without_a_file_nothing_is_asked_of_anybody() {
    let web = Web::new(None, "/".into());
    web.refresh().await;
    let rules = web.current().unwrap();
    assert!(rules.tls.is_none() && !rules.have_users() && web.may_ask(&rules));
    assert_eq!(web.last_reload_successful(), None);
}

#[tokio::test]
async fn a_rate_holds_until_another_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.yml");
    let web = Web::new(Some(path.clone()), "/".into());
    for (text, first, second) in [
        ("rate_limit: {interval: 1h, burst: 1}", true, false),
        ("rate_limit: {interval: 1h, burst: 1} # the same", false, false),
        ("rate_limit: {interval: 1h, burst: 2}", true, true),
        ("rate_limit: {interval: 0, burst: 0}", true, true),
    ] {
        std::fs::write(&path, text).unwrap();
        let rules = loop {
            web.refresh().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            match web.current() {
                Some(rules) if !locked(&web.state).hangs => break rules,
                _ => {}
            }
        };
        assert_eq!((web.may_ask(&rules), web.may_ask(&rules)), (first, second), "{text}");
    }
}

#[test]
fn a_file_system_that_hangs_says_nothing_about_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("web.yml");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .unwrap();
    runtime.block_on(async {
        let web = Web::new(Some(path.clone()), "/".into());
        std::fs::write(&path, "basic_auth_users: {}").unwrap();
        while web.current().is_none() {
            web.refresh().await;
        }
        // A pipe that nobody writes to: opening it hangs.
        let pipe = || {
            std::fs::remove_file(&path).unwrap();
            let (fifo, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU);
            rustix::fs::mknodat(rustix::fs::CWD, &path, fifo, mode, 0).unwrap();
        };
        pipe();
        for _ in 0..4 {
            web.refresh().await;
            assert!(web.current().is_some());
            assert_eq!(web.last_reload_successful(), Some(false));
        }
        let old = folder.path().join("old");
        std::fs::rename(&path, &old).unwrap();
        std::fs::write(&path, "basic_auth_users: [").unwrap();
        let released = tokio::task::spawn_blocking(move || std::fs::write(old, "basic_auth_users: ["));
        released.await.unwrap().unwrap();
        while web.current().is_some() {
            web.refresh().await;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Refused is refused, also while nobody knows what came after.
        pipe();
        web.refresh().await;
        assert!(locked(&web.state).hangs && web.current().is_none());
    });
    runtime.shutdown_background();
}
