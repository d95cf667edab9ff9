//! The bot's own metrics, passed through: read line by line as they arrive, bounded, and written anew, so that whatever the bot says,
//! Prometheus accepts the page. Nothing of the bot's page is kept but the text that passes.
//!
//! Names in quotes, which Prometheus 3 allows to have any characters, do not pass: the format that we write has none.

pub(crate) mod line;
mod memory;
mod passage;
mod rank;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::memory::Memory;
use self::passage::Passage;
use super::fetch::{Bot, Fetch};
use super::{Reading, Source};
use crate::catalogue::metrics::Metric;
use crate::exporter::bounds::PAGE_BYTES;
use crate::exporter::page::{Page, escaped};
use crate::sidecar::config::Endpoint;

/// `OpenMetrics` is understood as well, for bots that speak nothing else.
const ACCEPT: &str = "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5, */*;q=0.1";

/// The bot's metrics endpoint.
pub(crate) struct Metrics {
    fetch: Fetch,
    reserved: BTreeSet<&'static str>,
    environment: Option<String>,
    /// Held while the page arrives.
    memory: tokio::sync::Mutex<Memory>,
}

impl Metrics {
    /// `reserved` are the families that the exporter itself answers for, `environment` is the label of that name.
    pub fn new(bot: &Bot, endpoint: &Endpoint, reserved: BTreeSet<&'static str>, environment: Option<&str>) -> Self {
        Self {
            fetch: Fetch::new(bot, endpoint, ACCEPT, PAGE_BYTES),
            reserved,
            environment: environment.map(|text| escaped(text).into_owned()),
            memory: tokio::sync::Mutex::default(),
        }
    }

    async fn ask(&self) -> Reading {
        let mut memory = self.memory.lock().await;
        let mut passage = Passage::new(&self.reserved, &mut memory, self.environment.as_deref(), Instant::now());
        match self.fetch.stream(|part| passage.read(part)).await {
            Ok(()) => Self::reading(passage),
            Err(error) => Reading::failed(Page::default(), error.to_string()),
        }
    }

    /// Reads a page that is there already.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn pass(&mut self, page: &[u8]) -> Reading {
        let memory = self.memory.get_mut();
        let mut passage = Passage::new(&self.reserved, memory, self.environment.as_deref(), Instant::now());
        passage.read(page);
        Self::reading(passage)
    }

    /// How many series pass at most.
    #[cfg(any(fuzzing, test))]
    pub(crate) fn most_series() -> usize {
        rank::Rank::ALL.into_iter().map(rank::Rank::series).sum()
    }

    fn reading(passage: Passage<'_>) -> Reading {
        let (text, dropped, samples) = passage.finish();
        let refused: u64 = dropped.by_reason().map(|(_, number)| number).sum();
        let problem =
            (samples == 0 && refused > 0).then(|| format!("none of {refused} samples could be passed through"));
        Reading {
            page: Page::default(),
            text,
            dropped,
            problem,
        }
    }
}

impl Source for Metrics {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn timeout(&self) -> Duration {
        self.fetch.timeout()
    }

    fn families(&self) -> &'static [&'static Metric] {
        &[]
    }

    fn read(self: Arc<Self>) -> Pin<Box<dyn Future<Output = Reading> + Send>> {
        Box::pin(async move { self.ask().await })
    }
}
