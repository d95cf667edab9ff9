//! Who may ask the exporter, and how: the web configuration file of exporter-toolkit, read again before every request.
//!
//! ```text
//! file ─► tls ─► clients      what a connection needs: certificates, versions, who shows which certificate
//!    └──► rate, logins        what a request needs: how often, and whose password
//! ```

mod clients;
mod file;
mod logins;
mod rate;
mod refusal;
mod tls;

use std::io::{ErrorKind, Read};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use ring::digest::{Context, SHA256};
use rustls::ServerConfig;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::locked;
use file::{File, Source};
pub(super) use logins::Login;
use logins::Logins;
use rate::Bucket;
use refusal::Refusal;

/// Far more than any of these files needs.
pub(super) const LARGEST: u64 = 256 << 10;
/// A file system that hangs must not hold up whoever asks.
const READ_TIMEOUT: Duration = Duration::from_millis(200);

/// The web configuration: where it comes from, and what it is now.
pub(super) struct Web {
    path: Option<PathBuf>,
    rootfs: PathBuf,
    /// How many readings were begun.
    begun: AtomicU64,
    reading: tokio::sync::Mutex<Reading>,
    state: Mutex<State>,
    bucket: Mutex<Option<Bucket>>,
    logins: Option<Arc<Logins>>,
}

#[derive(Default)]
struct Reading {
    /// The number of the last one that ended.
    ended: u64,
    seen: Option<Arc<Seen>>,
    /// The one that is on its way, its number, and since when. One that hangs can't be ended, and each further one would hold a
    /// thread too.
    under_way: Option<(u64, Instant, JoinHandle<Look>)>,
}

/// What the files held when they were last looked at.
struct Seen {
    text: [u8; 32],
    file: Result<Arc<File>, String>,
    others: [u8; 32],
}

/// What a look at the files brought.
enum Look {
    Unchanged,
    Unreadable(String),
    Changed(Arc<Seen>, Result<Arc<Rules>, String>),
}

#[derive(Default)]
struct State {
    rules: Option<Arc<Rules>>,
    /// Why what the files held when they were last read is not in force.
    refused: Option<String>,
    /// Whether the file system does not answer, so that nothing is known about what the file says now.
    hangs: bool,
}

/// What a handshake asked of the client: type of authentication, authority and names. It is the same as long as these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asked([u8; 32]);

/// What is in force.
#[derive(Default)]
pub(super) struct Rules {
    file: Arc<File>,
    /// How to speak TLS; nothing where the file does not ask for it.
    pub tls: Option<Arc<ServerConfig>>,
    /// What a handshake asks of clients; nothing where there is none.
    pub asked: Option<Asked>,
}

impl Rules {
    /// Whether a client's certificate says who it is.
    pub fn verify_clients(&self) -> bool {
        self.file.tls.as_ref().is_some_and(|tls| tls.clients.verifies())
    }

    /// Whether everybody has to log in.
    pub fn have_users(&self) -> bool {
        !self.file.users.is_empty()
    }

    /// What every answer carries.
    pub fn headers(&self) -> &[(HeaderName, HeaderValue)] {
        &self.file.headers
    }
}

impl Web {
    /// The file at `path`, whose absolute paths are read below `rootfs`; without a path nothing is asked of anybody.
    pub fn new(path: Option<PathBuf>, rootfs: PathBuf) -> Self {
        let logins = path.as_ref().and_then(|_| Logins::new().ok()).map(Arc::new);
        let open = path.is_none().then(Arc::default);
        Self {
            path,
            rootfs,
            begun: AtomicU64::new(0),
            reading: tokio::sync::Mutex::default(),
            state: Mutex::new(State {
                rules: open,
                ..State::default()
            }),
            bucket: Mutex::default(),
            logins,
        }
    }

    /// Whether there is a file that has to be read.
    pub fn is_given(&self) -> bool {
        self.path.is_some()
    }

    /// Whether the file was understood when it was last read; nothing where none is given.
    pub fn last_reload_successful(&self) -> Option<bool> {
        let state = locked(&self.state);
        self.path.as_ref().map(|_| state.refused.is_none() && !state.hangs)
    }

    /// What is in force, if only because nothing better is known since.
    pub fn rules(&self) -> Option<Arc<Rules>> {
        locked(&self.state).rules.clone()
    }

    /// What is in force, unless the file can't be understood now. A file system that does not answer says nothing about the file.
    pub fn current(&self) -> Option<Arc<Rules>> {
        let state = locked(&self.state);
        state.rules.clone().filter(|_| state.refused.is_none())
    }

    /// Whether one more request may be answered by these rules.
    pub fn may_ask(&self, rules: &Rules) -> bool {
        let now = Instant::now();
        let mut bucket = locked(&self.bucket);
        if bucket.as_ref().map(Bucket::rate) != rules.file.rate {
            *bucket = rules.file.rate.map(|rate| Bucket::new(rate, now));
        }
        bucket.as_mut().is_none_or(|bucket| bucket.take(now))
    }

    /// Whether the value of a header `Authorization` is that of a user.
    pub async fn login(&self, rules: &Rules, header: Option<&HeaderValue>, peer: IpAddr) -> Login {
        match &self.logins {
            Some(logins) => logins.check(&rules.file.users, header, peer).await,
            None => Login::Busy,
        }
    }

    /// Looks at the files, unless a look that began after this call was made is over already.
    pub async fn refresh(&self) {
        let Some(path) = &self.path else { return };
        let before = self.begun.load(Ordering::SeqCst);
        let mut reading = self.reading.lock().await;
        while reading.ended <= before {
            let (path, rootfs, seen) = (path.clone(), self.rootfs.clone(), reading.seen.clone());
            // Kept across the wait, since whoever waits may leave.
            let (number, since, read) = reading.under_way.get_or_insert_with(|| {
                let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
                let look = move || look(&path, &rootfs, seen.as_deref());
                (number, Instant::now(), tokio::task::spawn_blocking(look))
            });
            let number = *number;
            let Ok(look) = tokio::time::timeout_at(*since + READ_TIMEOUT, read).await else {
                self.hangs();
                return;
            };
            (reading.under_way, reading.ended) = (None, number);
            match look {
                Ok(Look::Unchanged) => locked(&self.state).hangs = false,
                Ok(Look::Changed(seen, outcome)) => {
                    reading.seen = Some(seen);
                    self.judge(outcome);
                }
                Ok(Look::Unreadable(reason)) => {
                    reading.seen = None;
                    self.judge(Err(reason));
                }
                Err(error) => {
                    reading.seen = None;
                    self.judge(Err(error.to_string()));
                }
            }
        }
    }

    fn hangs(&self) {
        let mut state = locked(&self.state);
        if !std::mem::replace(&mut state.hangs, true) {
            let path = self.path.as_deref().unwrap_or(Path::new("")).display();
            tracing::warn!("{path}: the file system does not answer; it stays as it was");
        }
    }

    /// Takes over what the files hold, or why that can't be.
    fn judge(&self, outcome: Result<Arc<Rules>, String>) {
        let mut state = locked(&self.state);
        let path = self.path.as_deref().unwrap_or(Path::new("")).display();
        let outcome = outcome.and_then(|rules| match &state.rules {
            Some(old) => follows(old, &rules)
                .map(|()| rules)
                .map_err(|refusal| refusal.to_string()),
            None => Ok(rules),
        });
        state.hangs = false;
        match outcome {
            Ok(rules) => {
                tracing::info!(%path, "read the web configuration");
                for oddity in rules.file.oddities() {
                    tracing::warn!("{path}: {oddity}");
                }
                (state.rules, state.refused) = (Some(rules), None);
            }
            Err(reason) if state.refused.as_ref() == Some(&reason) => {}
            Err(reason) => {
                let until = match state.rules {
                    Some(_) => "every request is answered 500",
                    None => "nothing is served",
                };
                tracing::warn!("{path}: {reason}; {until} until this is mended");
                state.refused = Some(reason);
            }
        }
    }
}

/// Whether new rules may follow the old ones while somebody relies on those.
fn follows(old: &Rules, new: &Rules) -> Result<(), Refusal> {
    // A file that is written anew is empty for a moment, and an editor that fails leaves it so.
    if new.file.empty && !old.file.empty {
        return Err(Refusal::Emptied);
    }
    // The toolkit goes on with TLS as well, and its handshakes fail.
    if new.tls.is_none() && old.tls.is_some() {
        return Err(Refusal::TakenAway {
            field: "tls_server_config",
        });
    }
    Ok(())
}

/// Reads what changed since. A mounted Secret changes by swapping a link, so that certificate and key may come from two versions
/// of it: hence the second look.
fn look(path: &Path, rootfs: &Path, seen: Option<&Seen>) -> Look {
    match once(path, rootfs, seen) {
        Look::Changed(_, Err(_)) => once(path, rootfs, seen),
        look => look,
    }
}

fn once(path: &Path, rootfs: &Path, seen: Option<&Seen>) -> Look {
    let text = match read(path) {
        Ok(text) => text,
        Err(reason) => return Look::Unreadable(reason),
    };
    let digested = sha256([text.as_slice()]);
    let file = match seen {
        Some(seen) if seen.text == digested => seen.file.clone(),
        _ => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            let file = file::parse(&text, folder, rootfs);
            file.map(Arc::new).map_err(|refusal| refusal.to_string())
        }
    };
    let texts = match &file {
        Ok(file) => texts(file).map_err(|refusal| refusal.to_string()),
        Err(reason) => Err(reason.clone()),
    };
    let others = match &texts {
        Ok(texts) => {
            let texts = texts.as_ref();
            let parts = texts.map(|texts| [Some(&texts.cert), Some(&texts.key), texts.client_ca.as_ref()]);
            sha256(parts.into_iter().flatten().flatten().map(Vec::as_slice))
        }
        Err(reason) => sha256([reason.as_bytes()]),
    };
    if seen.is_some_and(|seen| seen.text == digested && seen.others == others) {
        return Look::Unchanged;
    }
    let rules = match (&file, texts) {
        (Ok(file), Ok(texts)) => rules(file.clone(), texts).map_err(|refusal| refusal.to_string()),
        (Err(reason), _) => Err(reason.clone()),
        (_, Err(reason)) => Err(reason),
    };
    let seen = Seen {
        text: digested,
        file,
        others,
    };
    Look::Changed(Arc::new(seen), rules)
}

fn rules(file: Arc<File>, texts: Option<tls::Texts>) -> Result<Arc<Rules>, Refusal> {
    let (tls, asked) = match (&file.tls, texts) {
        (Some(tls), Some(texts)) => (Some(tls::server(tls, file.http2, &texts)?), Some(asked(tls, &texts))),
        _ => (None, None),
    };
    Ok(Arc::new(Rules { file, tls, asked }))
}

fn asked(tls: &file::Tls, texts: &tls::Texts) -> Asked {
    let kind = format!("{:?} {}", tls.clients, tls.allowed_sans.is_some());
    let names = tls.allowed_sans.iter().flatten().map(String::as_bytes);
    let authority = texts.client_ca.as_deref().unwrap_or_default();
    Asked(sha256([kind.as_bytes(), authority].into_iter().chain(names)))
}

/// Judges a file with this text, which lies where no other file is.
#[cfg(any(fuzzing, test))]
pub(super) fn understand(text: &[u8]) -> Result<(), String> {
    let nowhere = Path::new("/nonexistent");
    let rules = file::parse(text, nowhere, nowhere).and_then(|file| {
        let texts = texts(&file)?;
        rules(Arc::new(file), texts)
    });
    rules.map(drop).map_err(|refusal| refusal.to_string())
}

/// The certificates and keys that the file names.
fn texts(file: &File) -> Result<Option<tls::Texts>, Refusal> {
    let Some(tls) = &file.tls else { return Ok(None) };
    let text = |source: &Source| match source {
        Source::Inline(_, text) => Ok(text.clone().into_bytes()),
        Source::File(field, path) => read(path).map_err(|reason| Refusal::Field {
            field: format!("tls_server_config.{field}"),
            reason: format!("{}: {reason}", path.display()),
        }),
    };
    Ok(Some(tls::Texts {
        cert: text(&tls.cert)?,
        key: text(&tls.key)?,
        client_ca: tls.client_ca.as_ref().map(text).transpose()?,
    }))
}

/// By its path each time, for the sake of links that are swapped.
fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    match read {
        Ok(_) if bytes.len() as u64 > LARGEST => Err(format!("is larger than {LARGEST} bytes")),
        Ok(_) => Ok(bytes),
        Err(error) if error.kind() == ErrorKind::NotFound => Err("is not there".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn sha256<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&part.len().to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

#[cfg(test)]
mod tests;
