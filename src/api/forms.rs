//! The forms that texts in a resource must have: the patterns of the schema, what each is in words, and names and labels as
//! the API server checks them (`k8s.io/apimachinery/pkg/util/validation`).

/// Name of a monitor, a channel, a route or a volume.
pub const DNS_LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Name of an object.
pub const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
/// Value of a label.
pub const LABEL_VALUE: &str = "^([a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?)?$";
/// Value of a label, and not an empty one.
pub const SOME_LABEL_VALUE: &str = "^[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$";
/// Name of an alert or of a label in Prometheus.
pub const PROMETHEUS_NAME: &str = "^[a-zA-Z_][a-zA-Z0-9_]*$";
/// One e-mail address, without a display name.
pub const EMAIL_ADDRESS: &str = r"^[^\s@,;:<>]+@[^\s@,;:<>]+$";
/// Path of a URL, without query and fragment.
pub const URL_PATH: &str = r"^/[A-Za-z0-9._~!$&'()*+,;=:@%/-]*$";
/// Folder in a volume.
pub const FOLDER: &str = r"^([^/\s][^\s]*)?$";
/// File in a volume.
pub const FILE: &str = r"^[^/\s]([^\s]*[^/\s])?$";
/// Time in hours, minutes and seconds.
pub const DURATION: &str = "^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,6}s)?$";
/// Amount of CPU or memory.
pub const QUANTITY: &str = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$";
/// Server and port.
pub const HOST_AND_PORT: &str = r"^[a-zA-Z0-9]([-a-zA-Z0-9.]*[a-zA-Z0-9])?:[0-9]{1,5}$";
/// Address of a page, without a password and a query.
pub const PAGE_URL: &str = r"^https?://[^\s@?]+$";
/// Address of a service, without user, password, query and fragment.
pub const SERVICE_URL: &str = r"^https?://([A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~!$&'()*+,;=:%/-]*)?$";
/// Name in a certificate: a DNS name, or an IP address.
pub const SERVER_NAME: &str = r"^[A-Za-z0-9:]([-A-Za-z0-9.:_]*[A-Za-z0-9])?$";
/// Name of a user in basic authentication.
pub const USER: &str = r"^[^:\s]+$";
/// Emoji by its name.
pub const EMOJI: &str = r"^:[^\s:]+:$";
/// Whom a message calls.
pub const MENTION: &str = r"^(everyone|here|(role|user):[A-Za-z0-9]+)$";
/// Key of a Secret or of a `ConfigMap`.
pub const DATA_KEY: &str = r"^[-._a-zA-Z0-9]+$";
/// Container image.
pub const IMAGE: &str = r"^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$";
/// Names of files.
pub const FILE_PATTERN: &str = r"^[^/]+$";

/// What a text of this pattern is, for people who wrote another.
pub(super) fn in_words(pattern: &str) -> Option<&'static str> {
    Some(match pattern {
        DNS_LABEL => "a DNS label; write small letters, digits and inner hyphens",
        OBJECT_NAME => "the name of an object; write small letters, digits, inner hyphens and dots",
        LABEL_VALUE | SOME_LABEL_VALUE => {
            "the value of a label; write letters, digits and inner hyphens, underscores and dots"
        }
        PROMETHEUS_NAME => "a name; write letters, digits and underscores, no digit first",
        EMAIL_ADDRESS => "a plain e-mail address; write one such as oncall@example.org",
        URL_PATH => "a path; it starts with / and has no query, such as /api/health",
        FOLDER => "a folder in the volume; it does not start with / and has no white space",
        FILE => "a file in the volume; it starts and ends with no / and has no white space, such as rosey.log",
        DURATION => "a duration; write hours, minutes and seconds such as 30s, 5m or 1h30m",
        QUANTITY => "a Kubernetes quantity; write one such as 5m, 32Mi or 1",
        HOST_AND_PORT => "a server and its port; write both such as smtp.example.org:587",
        PAGE_URL => {
            "the address of a page; it starts with http:// or https:// and has no @ and no ?, such as https://runbooks.example.org/{alert}"
        }
        SERVICE_URL => {
            "the address of a service; it starts with http:// or https:// and has no user, query or fragment, such as http://pushgateway:9091"
        }
        SERVER_NAME => "a name in a certificate; write a DNS name such as rosey-exporter",
        USER => "the name of a user; it has no colon and no white space",
        EMOJI => "an emoji; write its name between colons such as :robot_face:",
        MENTION => "a mention; write everyone, here, role:<id> or user:<id>",
        DATA_KEY => "a key of a Secret or ConfigMap; write letters, digits, hyphens, underscores and dots",
        IMAGE => "an image; write one such as registry.example.org/rosey-exporter:1.0",
        FILE_PATTERN => "a pattern of names; it has no / in it, such as backup_*",
        _ => return None,
    })
}

/// Whether `text` is a DNS label of at most `longest` characters.
#[must_use]
pub fn is_dns_label(text: &str, longest: usize) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=longest).contains(&text.len()) && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// Whether `key` is the key of a label: a name such as `app`, or one behind a domain such as `example.org/name`.
#[must_use]
pub fn is_label_key(key: &str) -> bool {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    // The parts of a prefix may be longer than those of a domain: only the whole is measured.
    let domain = |prefix: &str| prefix.len() <= 253 && prefix.split('.').all(|part| is_dns_label(part, 253));
    prefix.is_none_or(domain) && !name.is_empty() && is_label_value(name)
}

/// Whether `text` is the value of a label; it may be empty.
#[must_use]
pub fn is_label_value(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63 && text.bytes().all(inner) && edge(bytes.first()) && edge(bytes.last())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_a_label_has_a_name_and_perhaps_a_domain() {
        let long = "a".repeat(64);
        for (key, fits) in [
            ("app", true),
            ("App_1.x", true),
            ("example.org/name", true),
            (&format!("{long}.org/name"), true),
            (&format!("{}/name", "a".repeat(254)), false),
            (&long, false),
            ("", false),
            ("/name", false),
            ("example.org/", false),
            ("Example.org/name", false),
            ("a..b/name", false),
            ("a/b/c", false),
            ("-app", false),
            ("äpp", false),
        ] {
            assert_eq!(is_label_key(key), fits, "{key}");
        }
    }

    #[test]
    fn the_functions_agree_with_the_patterns() {
        let matches = |pattern: &str, text: &str| regex::Regex::new(pattern).unwrap().is_match(text);
        for text in [
            "", "a", "-", "a-", "-a", "a-b", "a.b", "a_b", "A", "9", "a b", "ä", "a\n",
        ] {
            assert_eq!(is_dns_label(text, 63), matches(DNS_LABEL, text), "{text:?}");
            assert_eq!(is_label_value(text), matches(LABEL_VALUE, text), "{text:?}");
        }
    }
}
