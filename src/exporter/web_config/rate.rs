//! How often one may ask: a bucket of requests that fills again with time.

use std::time::Duration;

use tokio::time::Instant;

use super::file::Rate;

/// What is left of a rate.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: Rate,
    left: f64,
    since: Instant,
}

impl Bucket {
    /// A full one.
    pub fn new(rate: Rate, now: Instant) -> Self {
        Self {
            rate,
            left: f64::from(rate.burst),
            since: now,
        }
    }

    pub fn rate(&self) -> Rate {
        self.rate
    }

    /// Whether one more request may come; if so, it is counted.
    pub fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        let fresh = passed.as_secs_f64() / self.rate.interval.max(Duration::from_nanos(1)).as_secs_f64();
        self.left = (self.left + fresh).min(f64::from(self.rate.burst));
        self.since = now;
        let may = self.left >= 1.0;
        if may {
            self.left -= 1.0;
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_at_once_and_then_one_request_for_each_interval() {
        let start = Instant::now();
        let second = |number: f64| start + Duration::from_secs_f64(number);
        let interval = Duration::from_secs(1);
        let mut bucket = Bucket::new(Rate { interval, burst: 2 }, start);
        let taken: Vec<_> = [0.0, 0.0, 0.5, 1.0, 1.5, 9.0, 9.0, 9.0]
            .map(|at| bucket.take(second(at)))
            .into();
        assert_eq!(taken, [true, true, false, true, false, true, true, false]);
    }

    #[test]
    fn a_burst_of_nothing_lets_nobody_in() {
        let interval = Duration::from_secs(1);
        let mut bucket = Bucket::new(Rate { interval, burst: 0 }, Instant::now());
        assert!(!bucket.take(Instant::now() + Duration::from_secs(60)));
    }
}
