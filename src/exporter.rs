//! The exporter: reads its sources when it is scraped and prints what they said.
//!
//! ```text
//! options ─► configuration (flags, or a file that is read again when it changes)
//!                 │
//!                 ▼
//! server, push ──► scrape ─► sources/* at once, each within the scrape's own deadline ─► page ─► text
//! ```

mod bounds;
mod compression;
mod configuration;
#[cfg(any(fuzzing, test))]
pub mod fuzzing;
mod histogram;
mod options;
mod page;
mod push;
mod regular;
mod scrape;
mod server;
mod sources;
mod state;
mod stream;
mod text;
mod web_config;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use options::Options;

/// Runs the exporter until `end`, and then at most two seconds more, in which it takes back what it pushed. Nothing that is wrong outside of it makes it end: it keeps trying, and says what
/// is wrong in its log, at `/health`, and in `rosey_exporter_*`.
pub async fn run(options: Options, end: impl Future<Output = ()>) {
    // One that is no text is given all the same, and must not count as none: a file that it names may be what closes the door.
    let start = options.resolve(|name| Some(std::env::var_os(name)?.to_string_lossy().into_owned()));
    let web = Arc::new(web_config::Web::new(start.web_config_file, start.rootfs.clone()));
    let exporter = scrape::Exporter::new(start.configuration, start.bot, start.rootfs.clone()).behind(web.clone());
    let exporter = Arc::new(exporter);
    let push = push::run(exporter.clone(), start.rootfs, end);
    exporter.refresh().await;
    web.refresh().await;
    let watch = async {
        loop {
            tokio::time::sleep(configuration::CHECK_INTERVAL).await;
            exporter.refresh().await;
            web.refresh().await;
        }
    };
    let serve = server::serve(exporter.clone(), web.clone(), start.listen, start.port);
    tokio::select! {
        ((), ()) = async { tokio::join!(watch, serve) } => {}
        () = push => {}
    }
}

/// The lock's content; a thread that panicked inside leaves whole values behind here.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
