//! Texts for people, as Prometheus templates: the only place where a `{{` is made.

/// The text as it is, in a template: `{{` in it comes out literally.
///
/// Prometheus executes annotations as Go templates, and its `query` function reads any series; so what a user wrote must
/// never become code.
#[must_use]
pub fn literal(text: &str) -> String {
    text.replace("{{", "{{\"{{\"}}")
}

/// Fills `{name}` for each name that is given; other braces stay. What is filled in is a template already.
#[must_use]
pub fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(text.len() + 64);
    let mut rest = text;
    'text: while let Some(start) = rest.find('{') {
        filled.push_str(&rest[..start]);
        let after = &rest[start + 1..];
        for (name, value) in values {
            if let Some(end) = after.strip_prefix(name).and_then(|tail| tail.strip_prefix('}')) {
                filled.push_str(value);
                rest = end;
                continue 'text;
            }
        }
        filled.push('{');
        rest = after;
    }
    filled + rest
}

/// The pod that an alert speaks of; an alert without one speaks of all that there were.
pub const POD: &str = "{{ with $labels.pod }}{{ . }}{{ else }}all pods{{ end }}";

/// The folder or volume that an alert speaks of; an alert without one speaks of what can't be read.
pub const PATH: &str = "{{ with $labels.path }}{{ . }}{{ else }}(unreadable){{ end }}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_wrote_does_not_become_code() {
        assert_eq!(literal("{{ query \"up\" }}"), "{{\"{{\"}} query \"up\" }}");
        assert_eq!(literal("{{{"), "{{\"{{\"}}{");
        assert_eq!(literal("plain {x}"), "plain {x}");
    }

    #[test]
    fn only_the_names_that_are_given_are_filled() {
        let values = [("value", "{{ $value }}"), ("for", "5m")];
        assert_eq!(
            fill("{value} for {for}, {other} {", &values),
            "{{ $value }} for 5m, {other} {"
        );
    }
}
