use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::*;

const SCRAPER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

fn header(user: &str, password: &str) -> HeaderValue {
    let value = format!("Basic {}", STANDARD.encode(format!("{user}:{password}")));
    value.parse().unwrap()
}

fn users() -> Users {
    let hash = |password| bcrypt::hash(password, 4).unwrap();
    [("alice", hash("alice123")), ("bob", hash("bob123"))]
        .map(|(user, hash)| (user.to_owned(), hash))
        .into()
}

/// Logins that count how often they compare.
fn counted() -> (Arc<Logins>, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counting = count.clone();
    let logins = Logins::comparing(move |password, hash| {
        counting.fetch_add(1, Ordering::SeqCst);
        bcrypt::verify(password, hash).unwrap()
    });
    (Arc::new(logins.unwrap()), count)
}

#[tokio::test]
async fn an_unknown_user_costs_one_bcrypt_and_a_known_one_none_from_the_second_time_on() {
    let (logins, count) = counted();
    let users = users();
    let check = async |user: &str, password: &str| {
        let login = logins.check(&users, Some(&header(user, password)), SCRAPER).await;
        (login, count.swap(0, Ordering::SeqCst))
    };
    assert_eq!(check("alice", "alice123").await, (Login::Good, 1));
    assert_eq!(check("alice", "alice123").await, (Login::Good, 0));
    assert_eq!(check("alice", "alice1234").await, (Login::Bad, 1));
    assert_eq!(check("alice", "alice1234").await, (Login::Bad, 0));
    assert_eq!(check("mallory", "alice123").await, (Login::Bad, 1));
    assert_eq!(check("mallory", "alice123").await, (Login::Bad, 0));
    assert_eq!(check("mallory", "fakepassword").await, (Login::Bad, 1));
    // Whatever others try: what is known to be good stays known.
    for number in 0..3 * REMEMBERED {
        let password = number.to_string();
        assert_eq!(check("mallory", &password).await, (Login::Bad, 1));
    }
    assert_eq!(check("alice", "alice123").await, (Login::Good, 0));
    assert!(locked(&logins.verdicts).bad.len() <= REMEMBERED);
}

#[tokio::test]
async fn a_password_that_was_changed_or_taken_away_is_good_no_longer() {
    let (logins, _) = counted();
    let (mut users, alice) = (users(), header("alice", "alice123"));
    assert_eq!(logins.check(&users, Some(&alice), SCRAPER).await, Login::Good);
    users.insert("alice".into(), bcrypt::hash("other", 4).unwrap());
    assert_eq!(logins.check(&users, Some(&alice), SCRAPER).await, Login::Bad);
    users.remove("alice");
    assert_eq!(logins.check(&users, Some(&alice), SCRAPER).await, Login::Bad);
}

#[tokio::test]
async fn a_verdict_can_not_be_borrowed_by_moving_the_borders_between_its_parts() {
    let (logins, _) = counted();
    let users = users();
    let (hash, fake) = (users["alice"].clone(), nobody(&users));
    // What the toolkit's cache once took for the same.
    for (user, password) in [
        (format!("alice{hash}"), "fakepassword".to_owned()),
        ("alice".to_owned(), format!("{fake}fakepassword")),
    ] {
        let login = logins.check(&users, Some(&header(&user, &password)), SCRAPER).await;
        assert_eq!(login, Login::Bad, "{user}");
    }
    assert_ne!(logins.tag([b"ab", b"c", b""]), logins.tag([b"a", b"bc", b""]));
    assert_ne!(
        logins.tag([b"a", b"b", b"c"]),
        Logins::new().unwrap().tag([b"a", b"b", b"c"])
    );
}

#[tokio::test]
async fn what_is_no_basic_authentication_costs_nothing() {
    let (logins, count) = counted();
    let users = users();
    let encoded = |text: &[u8]| format!("Basic {}", STANDARD.encode(text));
    for value in [
        "",
        "Basic",
        "Basic ",
        "Bearer abc",
        "Basic ???",
        "Basic\u{e4}",
        &encoded(b"alice"),
        &encoded(b"\xff:x"),
    ] {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        assert_eq!(
            logins.check(&users, Some(&value), SCRAPER).await,
            Login::Bad,
            "{value:?}"
        );
    }
    assert_eq!(logins.check(&users, None, SCRAPER).await, Login::Bad);
    assert_eq!(count.load(Ordering::SeqCst), 0);
    // A scheme may be written as one likes, and a password may have a colon in it.
    let value = header("alice", "alice123").to_str().unwrap().replace("Basic", "bAsIc");
    assert_eq!(
        logins.check(&users, Some(&value.parse().unwrap()), SCRAPER).await,
        Login::Good
    );
    let users = [("carol".to_owned(), bcrypt::hash("a:b", 4).unwrap())].into();
    assert_eq!(
        logins.check(&users, Some(&header("carol", "a:b")), SCRAPER).await,
        Login::Good
    );
}

#[test]
fn the_hash_of_nobody_is_one_and_costs_what_the_others_cost() {
    for cost in [4, 11] {
        let hash = bcrypt::hash("x", 4)
            .unwrap()
            .replacen("$04$", &format!("${cost:02}$"), 1);
        let dearer = hash.replacen(&format!("${cost:02}$"), "$12$", 1);
        let users = [("alice".to_owned(), hash), ("bob".to_owned(), dearer)].into();
        let parts: bcrypt::HashParts = nobody(&users).parse().unwrap();
        assert_eq!(parts.get_cost(), cost);
    }
    assert!(nobody(&Users::new()).starts_with("$2y$10$"));
}

#[tokio::test]
async fn whoever_tries_many_passwords_waits_behind_others_and_not_before_them() {
    let (asked, mut asks) = mpsc::unbounded_channel();
    let (release, released) = std::sync::mpsc::channel();
    let released = Mutex::new(released);
    let logins = Logins::comparing(move |password, hash| {
        asked.send(password.to_vec()).unwrap();
        locked(&released).recv().unwrap();
        bcrypt::verify(password, hash).unwrap()
    });
    let (logins, users) = (Arc::new(logins.unwrap()), Arc::new(users()));
    let attempt = |peer: IpAddr, user: &'static str, password: String| {
        let (logins, users) = (logins.clone(), users.clone());
        tokio::spawn(async move { logins.check(&users, Some(&header(user, &password)), peer).await })
    };
    let waiting = |number| {
        let logins = logins.clone();
        async move {
            while locked(&logins.waiting).len() < number {
                tokio::task::yield_now().await;
            }
        }
    };

    let attacker = IpAddr::from([10, 0, 0, 66]);
    let first = attempt(attacker, "alice", "0".into());
    assert_eq!(asks.recv().await.unwrap(), b"0");
    let second = attempt(attacker, "alice", "1".into());
    waiting(2).await;
    for number in 2..50 {
        assert_eq!(
            attempt(attacker, "alice", number.to_string()).await.unwrap(),
            Login::Busy
        );
    }
    // Somebody else still gets a place, the third one, and leaves before its turn.
    let scraper = attempt(SCRAPER, "alice", "alice123".into());
    waiting(3).await;
    scraper.abort();
    for _ in 0..3 {
        release.send(()).unwrap();
    }
    assert_eq!(first.await.unwrap(), Login::Bad);
    assert_eq!(second.await.unwrap(), Login::Bad);
    assert_eq!(asks.recv().await.unwrap(), b"1");
    assert_eq!(asks.recv().await.unwrap(), b"alice123");
    while !locked(&logins.waiting).is_empty() {
        tokio::task::yield_now().await;
    }
    // It was checked all the same, and costs nothing when it comes again.
    assert_eq!(attempt(SCRAPER, "alice", "alice123".into()).await.unwrap(), Login::Good);
    assert!(asks.try_recv().is_err());
}

#[tokio::test]
async fn the_same_credentials_at_the_same_time_cost_one_bcrypt() {
    let (users, bob, mallory) = (users(), header("bob", "bob123"), header("mallory", "bob123"));
    let many = (1..=40).map(|peer| IpAddr::from([10, 0, 1, peer]));
    let one = std::iter::repeat_n(SCRAPER, 40);
    for peers in [many.collect::<Vec<_>>(), one.collect()] {
        for (credentials, verdict) in [(&bob, Login::Good), (&mallory, Login::Bad)] {
            let (logins, count) = counted();
            let checks = peers.iter().map(|peer| logins.check(&users, Some(credentials), *peer));
            let all = futures::future::join_all(checks).await;
            assert!(all.iter().all(|login| *login == verdict), "{all:?}");
            assert_eq!(count.load(Ordering::SeqCst), 1);
        }
    }
}
