//! What was done to pods that run.

use prometheus::{IntCounterVec, Opts, Registry};

/// What became of the image of a pod's exporter; the value of the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageChange {
    /// It is the one that a new pod would get.
    Changed,
    /// It is the old one again: the new one did not run, or nobody awaits it any more.
    PutBack,
    /// The pod keeps its image: the plan or the API server does not want it changed.
    Left,
    /// The pod keeps an image that is not known to run: it can't get the old one back.
    Stuck,
    /// The pod could not be read or written, and is tried again.
    Failed,
}

impl ImageChange {
    const ALL: [Self; 5] = [Self::Changed, Self::PutBack, Self::Left, Self::Stuck, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::PutBack => "put_back",
            Self::Left => "left",
            Self::Stuck => "stuck",
            Self::Failed => "failed",
        }
    }
}

/// What became of the eviction of a pod without an exporter; the value of the label `result`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// The pod goes.
    Evicted,
    /// A disruption budget does not allow it now.
    Budget,
    /// The pod stays: a new one would have no exporter either.
    Left,
    /// The pod could not be read or evicted, and is tried again.
    Failed,
    /// The pod that came in place of an evicted one has no exporter.
    InVain,
}

impl Eviction {
    const ALL: [Self; 5] = [Self::Evicted, Self::Budget, Self::Left, Self::Failed, Self::InVain];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Evicted => "evicted",
            Self::Budget => "budget",
            Self::Left => "left",
            Self::Failed => "failed",
            Self::InVain => "in_vain",
        }
    }
}

/// Counts both.
#[derive(Debug)]
pub struct Upkeep {
    images: IntCounterVec,
    evictions: IntCounterVec,
}

impl Upkeep {
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["result"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let images = counter(
            "rosey_operator_image_changes_total",
            "Changes of the image of exporters that run, by result.",
        )?;
        let evictions = counter(
            "rosey_operator_evictions_total",
            "Evictions of pods without an exporter, by result.",
        )?;
        // increase() sees the first of each only if it was 0 before.
        for result in ImageChange::ALL {
            images.with_label_values(&[result.as_str()]);
        }
        for result in Eviction::ALL {
            evictions.with_label_values(&[result.as_str()]);
        }
        Ok(Self { images, evictions })
    }

    pub fn image(&self, result: ImageChange) {
        self.images.with_label_values(&[result.as_str()]).inc();
    }

    pub fn eviction(&self, result: Eviction) {
        self.evictions.with_label_values(&[result.as_str()]).inc();
    }
}
