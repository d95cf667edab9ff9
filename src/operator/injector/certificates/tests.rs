use super::*;

const DAY: i64 = 86_400;
const START: i64 = 1_800_000_000;

fn names() -> Vec<String> {
    vec!["rosey-operator.rosey-system.svc".into(), "127.0.0.1".into()]
}

fn fresh() -> Certificates {
    Certificates::issue(&names(), Lives::default(), START, None).unwrap()
}

fn spoilt(key: &str, value: Option<Vec<u8>>) -> CertificateError {
    let mut data = fresh().data();
    match value {
        Some(value) => data.insert(key.into(), ByteString(value)),
        None => data.remove(key),
    };
    Certificates::read(&data).unwrap_err()
}

#[test]
fn what_was_written_to_the_secret_is_read_from_it() {
    let made = fresh();
    let read = Certificates::read(&made.data()).unwrap();
    assert_eq!(read, made);
    assert_eq!(read.names, BTreeSet::from_iter(names()));
    assert_eq!(
        read.leaf(),
        Validity {
            from: START - 3_600,
            until: START + 30 * DAY
        }
    );
    assert_eq!(
        made.data().keys().collect::<Vec<_>>(),
        ["ca-bundle.crt", "ca.crt", "ca.key", "tls.crt", "tls.key"]
    );
}

#[test]
fn renewal_is_due_at_two_thirds_of_a_life_and_for_another_name() {
    let made = fresh();
    let renewal = made.leaf().renewal();
    assert!((START + 19 * DAY..=START + 20 * DAY).contains(&renewal), "{renewal}");
    assert_eq!(made.due(&names(), renewal - 1), Due::Nothing);
    assert_eq!(made.due(&names(), renewal), Due::Leaf);
    assert_eq!(made.next_due(), renewal);
    assert_eq!(made.due(&names(), START + 244 * DAY), Due::Authority);
    assert_eq!(made.due(&["elsewhere.example.org".into()], START), Due::Leaf);
    assert_eq!(
        made.with_new_authority(Lives::default(), START)
            .unwrap()
            .due(&names(), START),
        Due::Leaf
    );
}

#[test]
fn a_leaf_does_not_outlive_its_authority() {
    let lives = Lives {
        authority: Duration::from_secs(10),
        leaf: Duration::from_secs(60),
    };
    let made = Certificates::issue(&names(), lives, START, None).unwrap();
    assert_eq!(made.leaf().until, START + 10);
}

#[test]
fn the_bundle_keeps_the_latest_authorities_only() {
    let mut certificates = fresh();
    for _ in 0..5 {
        let next = certificates.with_new_authority(Lives::default(), START).unwrap();
        certificates = next.with_new_leaf(&names(), Lives::default(), START).unwrap();
    }
    assert_eq!(
        certificates.bundle().matches("BEGIN CERTIFICATE").count(),
        MAX_AUTHORITIES
    );
    assert!(certificates.bundle().starts_with(value(&certificates.data, AUTHORITY)));
}

#[test]
fn a_secret_that_somebody_edited_is_refused_with_the_key_that_is_wrong() {
    for key in ["ca.crt", "ca.key", "tls.crt", "tls.key", "ca-bundle.crt"] {
        assert_eq!(spoilt(key, None).to_string(), format!("key {key} is missing"));
        assert!(
            spoilt(key, Some(b"-----BEGIN CERTIFICATE-----\nAAAA".to_vec()))
                .to_string()
                .contains(key)
        );
        assert!(spoilt(key, Some(vec![0xff; 10])).to_string().contains(key));
        assert!(
            spoilt(key, Some(vec![b'A'; MAX_VALUE + 1]))
                .to_string()
                .contains("larger")
        );
    }
    let other = fresh().data();
    for key in ["ca.crt", "ca.key", "tls.crt", "tls.key", "ca-bundle.crt"] {
        let error = spoilt(key, Some(other[key].0.clone()));
        assert!(matches!(error, CertificateError::Mismatch(..)), "{key}: {error}");
    }
}

#[test]
fn no_key_is_ever_printed() {
    let made = fresh();
    let shown = format!(
        "{made:?} {}",
        spoilt(LEAF_KEY, Some(b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n".to_vec()))
    );
    assert!(!shown.contains("PRIVATE") && !shown.contains("c2VjcmV0"), "{shown}");
}
