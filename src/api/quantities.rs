//! Scalars that users write as text: durations, thresholds and quantities.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A length of time in hours, minutes and seconds, such as `30s`, `5m` or `1h30m`.
///
/// Kept as it was written. The schema holds the pattern, so text that is no duration reaches us only from files that no API
/// server has seen; [`Duration::seconds`] answers `None` for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Duration(pub String);

impl Duration {
    /// The length in whole seconds; `None` for text that is no duration.
    #[must_use]
    pub fn seconds(&self) -> Option<u64> {
        let (mut rest, mut total) = (self.0.as_str(), 0u64);
        for (unit, seconds) in [('h', 3600), ('m', 60), ('s', 1)] {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            if let Some(after) = rest[digits..].strip_prefix(unit) {
                if digits == 0 || digits > 6 {
                    return None;
                }
                total += rest[..digits].parse::<u64>().ok()? * seconds;
                rest = after;
            }
        }
        (rest.is_empty() && !self.0.is_empty()).then_some(total)
    }
}

impl From<&str> for Duration {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "minLength": 2,
            "maxLength": 21,
            "pattern": super::forms::DURATION,
        })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// The value at which an alert fires, in the alert's own unit: a whole number, or text such as `"0.1"`, `500Mi` or `48h`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Threshold {
    /// A whole number.
    Number(i64),
    /// A decimal, a quantity or a duration.
    Text(String),
}

impl std::fmt::Display for Threshold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

impl JsonSchema for Threshold {
    fn schema_name() -> Cow<'static, str> {
        "Threshold".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 32 })
    }

    fn inline_schema() -> bool {
        true
    }
}

/// The value of a Kubernetes quantity that is not negative, such as `5m`, `0.1`, `32Mi` or `1e3`; `None` for other text.
#[must_use]
pub fn quantity(text: &str) -> Option<f64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
    let (number, suffix) = text.split_at(digits);
    let number: f64 = if number.is_empty() || number == "." {
        return None;
    } else {
        number.parse().ok()?
    };
    let factor = match suffix {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        "Pi" => 1_125_899_906_842_624.0,
        "Ei" => 1_152_921_504_606_846_976.0,
        exponent => {
            let exponent: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            10f64.powi(exponent.clamp(-30, 30))
        }
    };
    Some(number * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_hours_minutes_and_seconds_in_this_order() {
        for (text, seconds) in [
            ("30s", Some(30)),
            ("1h30m", Some(5400)),
            ("48h", Some(172_800)),
            ("0s", Some(0)),
        ] {
            assert_eq!(Duration::from(text).seconds(), seconds, "{text}");
        }
        for text in ["", "5", "m", "5d", "1m1h", "5 m", "-5m", "1.5h", "1234567s"] {
            assert_eq!(Duration::from(text).seconds(), None, "{text}");
        }
    }

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, value) in [
            ("5m", 0.005),
            ("32Mi", 33_554_432.0),
            ("0.1", 0.1),
            ("1e3", 1000.0),
            ("0", 0.0),
            ("2Gi", 2_147_483_648.0),
        ] {
            let parsed = quantity(text).unwrap();
            assert!((parsed - value).abs() < 1e-9 * value.max(1.0), "{text}: {parsed}");
        }
        for text in ["", ".", "Mi", "-5m", "5 m", "5mm", "abc", "1e", "1.2.3", "0x10"] {
            assert_eq!(quantity(text), None, "{text}");
        }
    }
}
