//! Whose places a series of the bot's page takes.

use super::line::Labels;
use crate::catalogue::metrics::{self, BOT_ERROR_COUNT_TOTAL, Metric};

/// Who shares places with whom, since the number of series is bounded: what an alert reads must not depend on what else a bot says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Rank {
    /// The critical errors.
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

    /// The rank of a family.
    pub fn of(name: &str) -> Self {
        // OpenMetrics declares a counter without the ending that its samples have.
        let is = |metric: &Metric| name == metric.name || Some(name) == declared(metric.name);
        if is(&BOT_ERROR_COUNT_TOTAL) {
            Self::Errors
        } else if metrics::ALL.iter().any(|metric| is(metric)) {
            Self::Known
        } else {
            Self::Rest
        }
    }

    /// The rank of a series with these labels, in a family of this rank.
    pub fn with(self, labels: &Labels<'_>) -> Self {
        if self == Self::Errors && labels.contains(&("error_type", "critical")) {
            Self::Critical
        } else {
            self
        }
    }

    /// How many series have a place.
    pub fn series(self) -> usize {
        match self {
            Self::Critical => 200,
            Self::Errors => 1_000,
            Self::Known => 4_000,
            Self::Rest => 10_000,
        }
    }

    /// How many bytes their text may have.
    pub fn bytes(self) -> usize {
        match self {
            Self::Critical => 32 << 10,
            Self::Errors => 96 << 10,
            Self::Known => 512 << 10,
            Self::Rest => 1536 << 10,
        }
    }

    /// How many values their labels may have, all together.
    pub fn values(self) -> usize {
        self.series() * 7 / 5
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
    fn what_the_catalogue_knows_has_places_of_its_own() {
        for (name, rank) in [
            ("rosey_bot_error_count_total", Rank::Errors),
            ("rosey_bot_error_count", Rank::Errors),
            ("rosey_bot_command_count_total", Rank::Known),
            ("bot_command_latency_seconds", Rank::Known),
            ("rosey_bot_up", Rank::Known),
            ("rosey_bot_error_counts_total", Rank::Rest),
            ("up", Rank::Rest),
        ] {
            assert_eq!(Rank::of(name), rank, "{name}");
        }
    }

    #[test]
    fn critical_errors_take_no_place_of_the_others() {
        let labels = |kind| vec![("host", "a"), ("error_type", kind)];
        assert_eq!(Rank::Errors.with(&labels("critical")), Rank::Critical);
        assert_eq!(Rank::Errors.with(&labels("timeout")), Rank::Errors);
        assert_eq!(Rank::Rest.with(&labels("critical")), Rank::Rest);
    }
}
