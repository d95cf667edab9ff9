//! One reading of a source, shared by scrapes that overlap.

use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{Shared, WeakShared, join_all};
use tokio::time::Instant;

use super::Part;
use crate::exporter::bounds::Dropped;
use crate::exporter::locked;
use crate::exporter::sources::{Reading, Source};
use crate::exporter::text::{Alive, Text};

/// What a reading came to.
#[derive(Debug)]
pub(super) struct Outcome {
    pub text: Arc<Text>,
    pub dropped: Dropped,
    pub problem: Option<String>,
    pub took: Duration,
}

type Flight = Pin<Box<dyn Future<Output = Arc<Outcome>> + Send>>;

/// A source, and the reading of it that is on its way.
pub(super) struct Line {
    pub part: Part,
    pub source: Arc<dyn Source>,
    environment: Option<String>,
    flight: Mutex<Option<WeakShared<Flight>>>,
    /// What was read last, for as long as somebody has it.
    newest: Arc<Mutex<Weak<Outcome>>>,
    alive: Arc<Mutex<Alive>>,
}

impl Line {
    /// `environment` is the label of that name on the bot's series, `alive` are the texts of all lines.
    pub fn new(part: Part, source: Arc<dyn Source>, environment: Option<&str>, alive: Arc<Mutex<Alive>>) -> Self {
        Self {
            part,
            source,
            environment: environment.map(str::to_owned),
            flight: Mutex::default(),
            newest: Arc::default(),
            alive,
        }
    }

    /// Whether it reads this, and labels it so.
    pub fn reads(&self, part: &Part, environment: Option<&str>) -> bool {
        self.part == *part && self.environment.as_deref() == environment
    }

    /// Joins the reading on its way, or starts one. It ends when nobody waits for it any more.
    fn board(&self) -> Shared<Flight> {
        let mut flight = locked(&self.flight);
        // One that has arrived is over: scrapes that overlap in a chain would otherwise see its values for ever.
        if let Some(under_way) = flight
            .as_ref()
            .and_then(WeakShared::upgrade)
            .filter(|shared| shared.peek().is_none())
        {
            return under_way;
        }
        let (source, environment, alive) = (self.source.clone(), self.environment.clone(), self.alive.clone());
        let newest = self.newest.clone();
        let started: Flight = Box::pin(async move {
            let start = Instant::now();
            let limit = source.timeout();
            locked(&alive).make_room();
            let reading = tokio::time::timeout(limit, source.clone().read()).await;
            let reading = reading.unwrap_or_else(|_| late(&*source, limit));
            let outcome = Outcome::new(reading, start.elapsed(), environment.as_deref());
            locked(&alive).admit(&outcome.text);
            let outcome = Arc::new(outcome);
            *locked(&newest) = Arc::downgrade(&outcome);
            outcome
        });
        let shared = started.shared();
        *flight = shared.downgrade();
        shared
    }

    pub async fn read(&self, deadline: Instant) -> Arc<Outcome> {
        let start = Instant::now();
        let answer = tokio::time::timeout_at(deadline, self.board()).await;
        answer.unwrap_or_else(|_| {
            let took = start.elapsed();
            let reading = late(&*self.source, took);
            Arc::new(Outcome::new(reading, took, self.environment.as_deref()))
        })
    }
}

/// Reads all of them at once. One that was read early, and whose text later scrapes took back while this one still waited for another
/// source, is what they read, or is read again: nothing of it was sent yet. To keep its text would cost the bound on memory, since a
/// bot that is slow in one place only could make any number of scrapes wait.
pub(super) async fn read_all(lines: &[Arc<Line>], deadline: Instant) -> Vec<Arc<Outcome>> {
    let mut outcomes = join_all(lines.iter().map(|line| line.read(deadline))).await;
    // Ends at the deadline at the latest: what comes then is no text that is kept.
    while let Some(at) = outcomes.iter().position(|outcome| outcome.text.is_withdrawn()) {
        let newest = locked(&lines[at].newest).upgrade();
        outcomes[at] = match newest.filter(|newest| !newest.text.is_withdrawn()) {
            Some(newest) => newest,
            // Whoever read it has gone, and it went with them.
            None => lines[at].read(deadline).await,
        };
    }
    outcomes
}

impl Outcome {
    fn new(reading: Reading, took: Duration, environment: Option<&str>) -> Self {
        let mut draft = reading.text;
        reading.page.print(&mut draft, environment);
        Self {
            text: draft.finish(),
            dropped: reading.dropped,
            problem: reading.problem,
            took,
        }
    }
}

fn late(source: &dyn Source, after: Duration) -> Reading {
    Reading::failed(
        source.unanswered(),
        format!("no answer within {:.1} s", after.as_secs_f64()),
    )
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::catalogue::metrics::Metric;

    /// Takes its time, and counts how often it is read and how often to the end.
    struct Slow {
        takes: Duration,
        begun: AtomicU32,
        ended: AtomicU32,
    }

    impl Source for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }
        fn timeout(&self) -> Duration {
            Duration::from_secs(2)
        }
        fn families(&self) -> &'static [&'static Metric] {
            &[]
        }
        fn read(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Reading> + Send>> {
            Box::pin(async move {
                self.begun.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(self.takes).await;
                self.ended.fetch_add(1, Ordering::Relaxed);
                Reading::default()
            })
        }
    }

    fn line(takes: Duration) -> (Arc<Slow>, Line) {
        let slow = Arc::new(Slow {
            takes,
            begun: AtomicU32::new(0),
            ended: AtomicU32::new(0),
        });
        (
            slow.clone(),
            Line::new(Part::Disk(Vec::new()), slow, None, Arc::default()),
        )
    }

    /// Says at once as much as a bot may.
    struct Large;

    impl Source for Large {
        fn name(&self) -> &'static str {
            "large"
        }
        fn timeout(&self) -> Duration {
            Duration::from_secs(2)
        }
        fn families(&self) -> &'static [&'static Metric] {
            &[]
        }
        fn read(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Reading> + Send>> {
            let mut reading = Reading::default();
            reading.text.push(&"a 1\n".repeat(500_000));
            Box::pin(async { reading })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_scrape_that_waits_for_one_source_loses_nothing_of_another_to_those_that_come_later() {
        let (_, slow) = line(Duration::from_secs(1));
        let large = Line::new(Part::Disk(Vec::new()), Arc::new(Large), None, Arc::default());
        let lines = [Arc::new(slow), Arc::new(large)];
        let deadline = Instant::now() + Duration::from_secs(5);
        let after = async |milliseconds| {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
            read_all(&lines, deadline).await
        };
        let (first, second, third) = tokio::join!(after(0), after(100), after(200));
        for scrape in [&first, &second, &third] {
            assert!(!scrape[1].text.is_withdrawn());
        }
        assert!(Arc::ptr_eq(&first[1], &third[1]), "more is kept than there is room for");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_taken_back_and_nobody_has_any_more_is_read_again() {
        let (_, slow) = line(Duration::from_secs(1));
        let large = Line::new(Part::Disk(Vec::new()), Arc::new(Large), None, Arc::default());
        let lines = [Arc::new(slow), Arc::new(large)];
        let start = Instant::now();
        let after = |milliseconds| start + Duration::from_millis(milliseconds);
        // They don't wait for the slow source, and are gone when the patient one has waited.
        let hasty = async |from, to| {
            tokio::time::sleep_until(after(from)).await;
            read_all(&lines, after(to)).await;
        };
        let patient = read_all(&lines, after(5_000));
        let (patient, (), (), ()) = tokio::join!(patient, hasty(100, 300), hasty(200, 400), hasty(250, 450));
        assert_eq!(start.elapsed().as_secs(), 1);
        for outcome in patient {
            assert!(outcome.problem.is_none() && !outcome.text.is_withdrawn());
        }
    }

    fn counts(slow: &Slow) -> (u32, u32) {
        (slow.begun.load(Ordering::Relaxed), slow.ended.load(Ordering::Relaxed))
    }

    #[tokio::test(start_paused = true)]
    async fn scrapes_that_overlap_share_a_reading_and_keep_their_own_deadlines() {
        let (slow, line) = line(Duration::from_secs(1));
        let now = Instant::now();
        let patient = line.read(now + Duration::from_secs(5));
        let hasty = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let reading = line.read(now + Duration::from_millis(300)).await;
            (reading, now.elapsed())
        };
        let (patient, (hasty, after)) = tokio::join!(patient, hasty);
        assert!(patient.problem.is_none());
        assert_eq!(hasty.problem.as_deref(), Some("no answer within 0.2 s"));
        assert_eq!(after.as_millis() / 10, 30);
        assert_eq!(counts(&slow), (1, 1));

        line.read(Instant::now() + Duration::from_secs(5)).await;
        assert_eq!(counts(&slow), (2, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_that_nobody_waits_for_ends() {
        let (slow, line) = line(Duration::from_secs(1));
        line.read(Instant::now() + Duration::from_millis(100)).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(counts(&slow), (1, 0));
        assert!(
            line.read(Instant::now() + Duration::from_secs(5))
                .await
                .problem
                .is_none()
        );
        assert_eq!(counts(&slow), (2, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn the_sources_own_timeout_ends_a_reading_before_a_late_deadline() {
        let (_, line) = line(Duration::from_secs(60));
        let start = Instant::now();
        let reading = line.read(start + Duration::from_secs(9)).await;
        assert_eq!(reading.problem.as_deref(), Some("no answer within 2.0 s"));
        assert_eq!(start.elapsed().as_secs(), 2);
    }
}
