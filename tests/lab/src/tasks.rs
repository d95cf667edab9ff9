//! Background tasks that end with the lab.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::task::{JoinHandle, JoinSet};

/// Tasks that are aborted together. Clones share them.
#[derive(Clone, Default)]
pub(crate) struct Tasks {
    set: Arc<Mutex<Option<JoinSet<()>>>>,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Self {
            set: Arc::new(Mutex::new(Some(JoinSet::new()))),
        }
    }

    /// Starts a task; after [`Tasks::end`] it does nothing.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(set) = set.as_mut() {
            while set.try_join_next().is_some() {}
            set.spawn(task);
        }
    }

    /// Takes a task over that runs already.
    pub(crate) fn adopt(&self, task: JoinHandle<()>) {
        self.spawn(async move {
            let task = AbortOnDrop(task);
            std::future::pending::<()>().await;
            drop(task);
        });
    }

    /// Aborts all of them.
    pub(crate) fn end(&self) {
        drop(self.set.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
