//! Why a file is refused, in words that may stand in a log: on one line, and without secrets.

/// Why a file is refused.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{}", in_a_line(.0))]
    Yaml(String),
    #[error("{}: {}", in_a_line(field), in_a_line(reason))]
    Field { field: String, reason: String },
    #[error("{field}: was taken away; that takes effect when the exporter is started again")]
    TakenAway { field: &'static str },
    #[error("is empty now; to serve everybody write: basic_auth_users: {{}}")]
    Emptied,
}

impl Refusal {
    /// What is wrong with the text itself. Serde quotes the values that it did not expect; they are left out.
    pub fn yaml(error: &serde_saphyr::Error) -> Self {
        Self::Yaml(without_values(&error.to_string()))
    }
}

fn without_values(message: &str) -> String {
    let (mut told, mut quoted, mut escaped) = (String::new(), false, false);
    for c in message.chars() {
        if c == '"' && !escaped {
            told.push_str(if quoted { "…\"" } else { "\"" });
            quoted = !quoted;
        } else if !quoted {
            told.push(c);
        }
        // A quote in a value is one of them.
        escaped = quoted && c == '\\' && !escaped;
    }
    told
}

/// Names are the file's own: there may be a line feed in them, and a hash that changed places with its user.
fn in_a_line(text: &str) -> String {
    let mut parts = text.split("$2");
    let mut told = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        told.push('…');
        told.push_str(part.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "$./".contains(c)));
    }
    let escaped = |c: char| {
        if c.is_control() {
            c.escape_debug().to_string()
        } else {
            c.to_string()
        }
    };
    told.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_left_out_whatever_quotes_are_in_it() {
        for (message, told) in [
            (r#"expected map, got "x" at 1"#, r#"expected map, got "…" at 1"#),
            (r#"got "a\"s3cret" at 1"#, r#"got "…" at 1"#),
            (r#"got "s3cret\\" at "s3cret""#, r#"got "…" at "…""#),
            (r#"got "s3cret\\\"s3cret"#, r#"got ""#),
        ] {
            assert_eq!(without_values(message), told, "{message}");
        }
    }

    #[test]
    fn a_name_neither_ends_the_line_nor_gives_a_hash_away() {
        let refusal = Refusal::Field {
            field: "basic_auth_users.$2y$10$XETTpPMJdrD/WVJzCcwds.LWyW".into(),
            reason: "a\nb: $2$2a: \u{85}is not there".into(),
        };
        assert_eq!(
            refusal.to_string(),
            "basic_auth_users.…: a\\nb: ……: \\u{85}is not there"
        );
    }
}
