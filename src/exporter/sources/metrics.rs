//! The bot's own metrics, passed through: read line by line, bounded, and written anew, so that whatever the bot says, Prometheus
//! accepts the page.

pub(crate) mod line;
mod passage;
mod rank;

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use self::passage::{Memory, Passage};
use super::fetch::{Bot, Fetch};
use super::{Reading, Source};
use crate::catalogue::metrics::Metric;
use crate::exporter::bounds::PAGE_BYTES;
use crate::exporter::locked;
use crate::exporter::page::Page;
use crate::sidecar::config::Endpoint;

/// The bot's metrics endpoint.
pub(crate) struct Metrics {
    fetch: Fetch,
    reserved: BTreeSet<&'static str>,
    memory: Mutex<Memory>,
}

impl Metrics {
    /// `reserved` are the families that the exporter itself answers for.
    pub fn new(bot: &Bot, endpoint: &Endpoint, reserved: BTreeSet<&'static str>) -> Self {
        Self {
            fetch: Fetch::new(bot, endpoint, "text/plain; version=0.0.4", PAGE_BYTES),
            reserved,
            memory: Mutex::default(),
        }
    }

    pub(crate) fn pass(&self, body: &[u8]) -> Reading {
        let mut memory = locked(&self.memory);
        let mut passage = Passage::new(&self.reserved, &mut memory, Instant::now());
        passage.read(body);
        let (page, dropped, samples) = passage.finish();
        let refused: u64 = dropped.by_reason().map(|(_, number)| number).sum();
        let problem =
            (samples == 0 && refused > 0).then(|| format!("none of {refused} samples could be passed through"));
        Reading { page, dropped, problem }
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
        Box::pin(async move {
            match self.fetch.get().await {
                Ok(body) => self.pass(&body),
                Err(error) => Reading::failed(Page::default(), error.to_string()),
            }
        })
    }
}
