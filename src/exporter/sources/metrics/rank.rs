//! In which order the lines of the bot's page are taken.

use super::line::Labels;
use crate::catalogue::metrics::{self, BOT_ERROR_COUNT_TOTAL, Metric};

/// Who goes first, since the number of series is bounded: what an alert reads must not depend on what else a bot says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rank {
    /// The critical errors, and what is said of their family.
    Critical,
    /// All other errors.
    Errors,
    /// The other families of the catalogue.
    Known,
    /// Whatever else a bot counts.
    Rest,
}

impl Rank {
    pub const ALL: [Self; 4] = [Self::Critical, Self::Errors, Self::Known, Self::Rest];

    /// The first rank that a line with this name may have.
    pub fn of(name: Option<&str>) -> Self {
        // OpenMetrics declares a counter without the ending that its samples have.
        let is = |metric: &Metric| name.is_some_and(|name| name == metric.name || Some(name) == declared(metric.name));
        if is(&BOT_ERROR_COUNT_TOTAL) {
            Self::Critical
        } else if metrics::ALL.iter().any(|metric| is(metric)) {
            Self::Known
        } else {
            Self::Rest
        }
    }

    pub fn is_of_errors(self) -> bool {
        matches!(self, Self::Critical | Self::Errors)
    }

    /// Whether a sample with these labels has its turn later, or had it before.
    pub fn passes_over(self, labels: &Labels<'_>) -> bool {
        let critical = labels
            .iter()
            .any(|(label, text)| *label == "error_type" && text == "critical");
        self.is_of_errors() && critical != (self == Self::Critical)
    }
}

/// What `OpenMetrics` calls the family of a counter.
pub(super) fn declared(name: &str) -> Option<&str> {
    name.strip_suffix("_total")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_catalogue_knows_goes_before_the_rest() {
        for (name, rank) in [
            ("rosey_bot_error_count_total", Rank::Critical),
            ("rosey_bot_error_count", Rank::Critical),
            ("rosey_bot_command_count_total", Rank::Known),
            ("rosey_bot_up", Rank::Known),
            ("rosey_bot_error_counts_total", Rank::Rest),
            ("up", Rank::Rest),
        ] {
            assert_eq!(Rank::of(Some(name)), rank, "{name}");
        }
        assert_eq!(Rank::of(None), Rank::Rest);
    }

    #[test]
    fn each_error_has_one_turn() {
        for kind in ["critical", "timeout"] {
            let labels = vec![("error_type", kind.to_owned())];
            let turns = Rank::ALL
                .into_iter()
                .filter(|rank| rank.is_of_errors() && !rank.passes_over(&labels));
            assert_eq!(turns.count(), 1, "{kind}");
        }
    }
}
