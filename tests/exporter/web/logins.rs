//! Users and their passwords.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Reply, Site, TLS};
use crate::processes::{Exporter, request};

fn hash(password: &str) -> String {
    bcrypt::hash(password, 4).unwrap()
}

/// A file in which each user's password is the name and 123.
fn users(names: &[&str]) -> String {
    let mut text = "basic_auth_users:\n".to_owned();
    for name in names {
        let _ = writeln!(text, "  {name}: {}", hash(&format!("{name}123")));
    }
    text
}

fn credentials(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

fn login(exporter: &Exporter, path: &str, user: &str, password: &str) -> u16 {
    let header = credentials(user, password);
    request(&exporter.address, "GET", path, &[("Authorization", &header)], "").status
}

#[test]
fn every_path_is_for_users_only() {
    let site = Site::new(&users(&["alice", "bob"]));
    let exporter = site.exporter();
    for path in ["/", "/metrics", "/health", "/ready", "/nowhere"] {
        let answer = exporter.get(path);
        assert_eq!(
            (answer.status, answer.header("www-authenticate")),
            (401, Some("Basic")),
            "{path}"
        );
        assert_eq!(answer.body, "Unauthorized\n");
        assert_eq!(login(&exporter, path, "alice", "bob123"), 401, "{path}");
    }
    let form = "application/x-www-form-urlencoded";
    assert_eq!(exporter.post("/record_rollback", form, "duration=1").status, 401);
    for (path, status) in [
        ("/", 200),
        ("/metrics", 200),
        ("/health", 200),
        ("/ready", 200),
        ("/nowhere", 404),
    ] {
        assert_eq!(login(&exporter, path, "alice", "alice123"), status, "{path}");
    }
    let header = credentials("bob", "bob123");
    let headers = [("Authorization", header.as_str()), ("Content-Type", form)];
    let recorded = request(&exporter.address, "POST", "/record_rollback", &headers, "duration=1");
    assert_eq!(recorded.status, 200);
}

#[test]
fn whoever_is_no_user_stays_outside_however_often() {
    let site = Site::new(&users(&["alice", "carol"]));
    let exporter = site.exporter();
    let text = std::fs::read_to_string(site.path("web.yml")).unwrap();
    let hash = text
        .lines()
        .find_map(|line| line.trim().strip_prefix("alice: "))
        .unwrap();
    let fake = "$2y$04$XETTpPMJdrD/WVJzCcwds.LWyWtSmA4kQG5OOTErHWxYjCdsZRP5S";
    for _ in 0..2 {
        for (user, password) in [
            ("fakeuser", "fakepassword"),
            ("nonexistent", "nonexistent"),
            ("alice", "alice1234"),
            ("alice", "carol123"),
            ("alice", hash),
            ("", ""),
            // CVE-2022-46146: with a key that joins the parts, the first fills the cache with what the second is looked up by.
            (&format!("alice{hash}"), "fakepassword"),
            ("alice", &format!("{fake}fakepassword")),
        ] {
            assert_eq!(login(&exporter, "/ready", user, password), 401, "{user} {password}");
        }
        assert_eq!(login(&exporter, "/ready", "carol", "carol123"), 200);
    }
}

#[test]
fn a_hash_may_have_each_of_the_names_that_bcrypt_has() {
    let names = ["$2a$", "$2b$", "$2y$"];
    let line = |(number, name): (usize, &&str)| {
        let hash = hash(&format!("user{number}123"));
        format!("  user{number}: {name}{}\n", &hash[4..])
    };
    let lines: String = names.iter().enumerate().map(line).collect();
    let site = Site::new(&format!("basic_auth_users:\n{lines}"));
    let exporter = site.exporter();
    for (number, name) in names.into_iter().enumerate() {
        let user = format!("user{number}");
        let statuses = ["123", "1234"].map(|end| login(&exporter, "/ready", &user, &format!("{user}{end}")));
        assert_eq!(statuses, [200, 401], "{name}");
    }
}

#[test]
fn many_at_once_are_told_apart() {
    let site = Site::new(&users(&["alice"]));
    let exporter = site.exporter();
    let each = [("alice123", 200), ("alice1234", 401)];
    for (password, status) in each {
        assert_eq!(login(&exporter, "/ready", "alice", password), status);
    }
    std::thread::scope(|scope| {
        for _ in 0..10 {
            for (password, status) in each {
                let exporter = &exporter;
                scope.spawn(move || {
                    for _ in 0..15 {
                        assert_eq!(login(exporter, "/ready", "alice", password), status);
                    }
                });
            }
        }
    });
}

#[test]
fn a_change_counts_from_the_next_request_on_and_a_broken_file_closes_the_door() {
    let site = Site::new(&users(&["alice"]));
    let exporter = site.exporter();
    let statuses =
        || [("alice", "alice123"), ("bob", "bob123")].map(|(user, word)| login(&exporter, "/metrics", user, word));
    assert_eq!(statuses(), [200, 401]);
    site.says_to(&exporter, &users(&["bob"]));
    assert_eq!(statuses(), [401, 200]);
    site.says_to(&exporter, "basic_auth_users: {bob");
    assert_eq!(statuses(), [500, 500]);
    let answer = exporter.get("/ready");
    assert_eq!((answer.status, answer.body.as_str()), (500, "Internal Server Error\n"));
    std::fs::remove_file(site.path("web.yml")).unwrap();
    assert!(Site::is_read_by(&exporter).contains("is not there"));
    assert_eq!(statuses(), [500, 500]);
    site.says_to(&exporter, &users(&["alice", "bob"]));
    assert_eq!(statuses(), [200, 200]);
    // A file that was only cut short opens nothing.
    site.says_to(&exporter, "");
    assert_eq!(exporter.get("/ready").status, 500);
    site.says_to(&exporter, "basic_auth_users: {}");
    assert_eq!(exporter.get("/ready").status, 200);
}

#[test]
fn a_secret_that_is_mounted_changes_by_its_link() {
    let site = Site::new("");
    let version = |name: &str, text: &str| {
        std::fs::create_dir(site.path(name)).unwrap();
        std::fs::write(site.path(name).join("web.yml"), text).unwrap();
        std::os::unix::fs::symlink(name, site.path("..new")).unwrap();
        std::fs::rename(site.path("..new"), site.path("..data")).unwrap();
    };
    version("..1", &users(&["alice"]));
    std::fs::remove_file(site.path("web.yml")).unwrap();
    std::os::unix::fs::symlink("..data/web.yml", site.path("web.yml")).unwrap();
    let exporter = site.exporter();
    assert_eq!(login(&exporter, "/ready", "alice", "alice123"), 200);
    version("..2", &users(&["bob"]));
    Site::is_read_by(&exporter);
    assert_eq!(login(&exporter, "/ready", "alice", "alice123"), 401);
    assert_eq!(login(&exporter, "/ready", "bob", "bob123"), 200);
}

#[test]
fn passwords_go_through_tls_in_both_versions_of_http() {
    let site = Site::new(&format!("{TLS}{}", users(&["dave"])));
    let exporter = site.exporter();
    for client in [site.client(), site.client().over_http2()] {
        let status = |headers: &[(&str, &str)]| client.get_with(&exporter, "/metrics", headers).unwrap().status;
        assert_eq!(status(&[]), 401);
        assert_eq!(status(&[("Authorization", &credentials("dave", "bad"))]), 401);
        assert_eq!(status(&[("Authorization", &credentials("dave", "dave123"))]), 200);
        let Reply { headers, body, .. } = client.get(&exporter, "/").unwrap();
        assert_eq!(headers["www-authenticate"], "Basic");
        assert_eq!(body, "Unauthorized\n");
    }
}
