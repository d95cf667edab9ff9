//! How times are distributed.

use std::fmt;

/// Median and 99th percentile, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub struct Quantiles {
    /// The median.
    pub p50: f64,
    /// The 99th percentile.
    pub p99: f64,
}

impl Quantiles {
    /// Those of these milliseconds, in whatever order; not a number where there are none.
    #[must_use]
    pub fn of(mut milliseconds: Vec<f64>) -> Self {
        milliseconds.sort_by(f64::total_cmp);
        let at = |hundredths: usize| {
            let place = (milliseconds.len() * hundredths / 100).min(milliseconds.len().saturating_sub(1));
            milliseconds.get(place).copied().unwrap_or(f64::NAN)
        };
        Self {
            p50: at(50),
            p99: at(99),
        }
    }
}

impl fmt::Display for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} / {:.1} ms", self.p50, self.p99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let hundred = (0..100).rev().map(f64::from).collect();
        assert_eq!(Quantiles::of(hundred).to_string(), "50.0 / 99.0 ms");
        assert_eq!(Quantiles::of(vec![3.0]).to_string(), "3.0 / 3.0 ms");
        assert!(Quantiles::of(Vec::new()).p50.is_nan());
    }
}
