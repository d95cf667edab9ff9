//! The configuration in force: that of the flags, or a file that is read again whenever its content changes.

use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::catalogue::metrics;
use crate::sidecar::config::Config;

/// How often the file is looked at, apart from every scrape.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// Far more than any configuration needs.
const LARGEST: u64 = 256 << 10;
/// A file system that hangs must not hold up the scrape.
const READ_TIMEOUT: Duration = Duration::from_millis(200);

/// Where the configuration comes from, and what it is now.
pub(super) struct Configuration {
    file: Option<PathBuf>,
    current: Option<Config>,
    /// What the file held when it was last looked at.
    seen: Option<Result<Vec<u8>, String>>,
    /// The read that is on its way, and since when. One that hangs can't be ended, and each further one would hold a thread too.
    reading: Option<(Instant, JoinHandle<std::io::Result<Vec<u8>>>)>,
    problem: Option<String>,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("{0}")]
    Yaml(String),
    #[error("{field}: {reason}")]
    Field { field: String, reason: String },
}

impl Configuration {
    /// One that stays as it is.
    pub fn fixed(config: Config) -> Self {
        let problem = judge(&config).err().map(|refusal| refusal.to_string());
        if let Some(problem) = &problem {
            tracing::warn!(problem, "the flags describe nothing that could be read");
        }
        let current = problem.is_none().then_some(config);
        Self {
            file: None,
            current,
            seen: None,
            reading: None,
            problem,
        }
    }

    /// One in a file, which may appear later.
    pub fn file(path: PathBuf) -> Self {
        let problem = Some(format!("{}: has not been read yet", path.display()));
        Self {
            file: Some(path),
            current: None,
            seen: None,
            reading: None,
            problem,
        }
    }

    /// What is in force; nothing before the file was there for the first time.
    pub fn current(&self) -> Option<&Config> {
        self.current.as_ref()
    }

    /// Why what the file holds now is not in force.
    pub fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// What the file holds, unless the file system hangs.
    async fn look(&mut self, path: &Path) -> Result<Vec<u8>, String> {
        let path = path.to_owned();
        // Kept across the wait, since whoever waits may leave.
        let (since, read) = self
            .reading
            .get_or_insert_with(|| (Instant::now(), tokio::task::spawn_blocking(move || read(&path))));
        let Ok(done) = tokio::time::timeout_at(*since + READ_TIMEOUT, read).await else {
            return Err("the file system does not answer".to_owned());
        };
        self.reading = None;
        match done {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) if error.kind() == ErrorKind::NotFound => Err("is not there".to_owned()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Looks at the file; says whether another configuration is in force now.
    pub async fn refresh(&mut self) -> bool {
        let Some(path) = self.file.clone() else { return false };
        let found = self.look(&path).await;
        if self.seen.as_ref() == Some(&found) {
            return false;
        }
        let parsed = match &found {
            Ok(bytes) => parse(bytes).map_err(|refusal| refusal.to_string()),
            Err(reason) => Err(reason.clone()),
        };
        self.seen = Some(found);
        let path = path.display();
        match parsed {
            Ok(config) => {
                tracing::info!(%path, "read the configuration");
                self.problem = None;
                let changed = self.current.as_ref() != Some(&config);
                self.current = Some(config);
                changed
            }
            Err(reason) => {
                let old = if self.current.is_some() {
                    "; the one before stays in force"
                } else {
                    ""
                };
                let problem = format!("{path}: {reason}{old}");
                tracing::warn!("{problem}");
                self.problem = Some(problem);
                false
            }
        }
    }
}

/// By its path each time: a mounted `ConfigMap` changes by swapping a link, and the old inode stays what it was.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn parse(bytes: &[u8]) -> Result<Config, Refusal> {
    if bytes.len() as u64 > LARGEST {
        return Err(Refusal::Yaml(format!("is larger than {LARGEST} bytes")));
    }
    // One line, as the log and `/health` want it, and the field, which the parser knows only by its place in the file.
    let options = serde_saphyr::options! { with_snippet: false };
    let mut field = String::new();
    let config: Config = serde_saphyr::with_deserializer_from_slice_with_options(bytes, options, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            field = error.path().to_string();
            error.into_inner()
        })
    })
    .map_err(|error| {
        let reason = error.without_snippet().to_string();
        // A question mark stands for what has no name.
        match field.trim_end_matches(['.', '?']) {
            "" => Refusal::Yaml(reason),
            field => Refusal::Field {
                field: field.to_owned(),
                reason,
            },
        }
    })?;
    judge(&config)?;
    Ok(config)
}

fn judge(config: &Config) -> Result<(), Refusal> {
    config.check().map_err(|(field, reason)| Refusal::Field {
        field,
        reason: reason.into(),
    })?;
    // The gateway writes the labels of a group over those of its series: with one of ours, many series would become one.
    let ours = |label: &str| label == "le" || metrics::ALL.iter().any(|metric| metric.labels.contains(&label));
    let mut labels = config.pushgateway.iter().flat_map(|gateway| gateway.labels.keys());
    match labels.find(|label| ours(label)) {
        Some(label) => Err(Refusal::Field {
            field: format!("pushgateway.labels.{label}"),
            reason: "is a label of the exporter's own series; write another name".into(),
        }),
        None => Ok(()),
    }
}

/// Whether the exporter would take this file.
///
/// # Errors
/// The file, the field, and what is wrong with it.
pub(super) fn check(path: &Path) -> Result<(), String> {
    let about = |reason: String| format!("{}: {reason}", path.display());
    let bytes = read(path).map_err(|error| about(error.to_string()))?;
    parse(&bytes).map(drop).map_err(|refusal| about(refusal.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_work_is_refused_with_the_field_in_it() {
        let refusal = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
        for (text, field) in [
            ("environment: \"\"", "environment: "),
            ("port: 0", "port: "),
            ("health: {port: 0, path: /x}", "health.port: "),
            ("health: {port: 1, path: x}", "health.path: "),
            ("metrics: {port: 1, path: \"/a b\"}", "metrics.path: "),
            (
                "metrics: {port: 1, path: /x, timeoutSeconds: .nan}",
                "metrics.timeoutSeconds: ",
            ),
            (
                "health: {port: 1, path: /x, timeoutSeconds: -1}",
                "health.timeoutSeconds: ",
            ),
            ("disk: [{label: a, path: b}]", "disk[0].path: "),
            ("disk: [{label: a, path: /a/../b}]", "disk[0].path: "),
            ("disk: [{label: a, path: /}, {label: a, path: /}]", "disk[1].label: "),
            ("backups: {path: b}", "backups.path: "),
            ("backups: {path: /b, pattern: \"\"}", "backups.pattern: "),
            ("pushgateway: {url: 'http://[::1]x:9091'}", "pushgateway.url: "),
            ("pushgateway: {url: 'http://h:99999'}", "pushgateway.url: "),
            ("pushgateway: {url: 'http://u:p@h'}", "pushgateway.url: "),
            (
                "pushgateway: {url: 'http://h', labels: {le: x}}",
                "pushgateway.labels.le: ",
            ),
            (
                "pushgateway: {url: 'http://h', labels: {path: x}}",
                "pushgateway.labels.path: ",
            ),
            (
                "pushgateway: {url: 'http://h', username: u}",
                "pushgateway.passwordFile: ",
            ),
        ] {
            assert!(refusal(text).starts_with(field), "{text}: {}", refusal(text));
        }
        for (text, start) in [
            ("port: many", "port: "),
            ("health: {port: 99999, path: /x}", "health.port: "),
            (
                "disk: [{label: a, path: /}, {label: b}]",
                "disk[1]: missing field `path`",
            ),
            ("disk: {}", "disk: "),
            (
                "health: {port: 1, path: /x, timeout: 2}",
                "health.timeout: unknown field `timeout`, expected one of ",
            ),
            ("prot: 1", "prot: unknown field `prot`, expected one of environment, "),
            ("port: 1\nport: 2", "duplicate mapping key: port"),
            ("[", "unclosed bracket"),
            ("- 1", ""),
        ] {
            let said = refusal(text);
            assert!(said.starts_with(start) && !said.contains('\n'), "{text}: {said}");
        }
        for nothing in ["", "# nothing yet\n", "---\n", "{}"] {
            assert_eq!(parse(nothing.as_bytes()).unwrap(), Config::default(), "{nothing}");
        }
        assert!(parse(&vec![b'#'; 300 << 10]).is_err());
    }

    #[tokio::test]
    async fn the_file_may_appear_change_by_a_swapped_link_and_break() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let link = |target: &str| {
            std::os::unix::fs::symlink(path(target), path("new")).unwrap();
            std::fs::rename(path("new"), path("exporter.yaml")).unwrap();
        };
        let mut configuration = Configuration::file(path("exporter.yaml"));
        assert!(!configuration.refresh().await);
        assert!(configuration.current().is_none());
        assert!(configuration.problem().unwrap().ends_with("is not there"));

        std::fs::write(path("one"), "port: 9101").unwrap();
        link("one");
        assert!(configuration.refresh().await);
        assert_eq!(configuration.current().unwrap().port, Some(9101));
        assert!(!configuration.refresh().await);

        std::fs::write(path("two"), "port: nine").unwrap();
        link("two");
        assert!(!configuration.refresh().await);
        assert_eq!(configuration.current().unwrap().port, Some(9101));
        assert!(
            configuration
                .problem()
                .unwrap()
                .ends_with("the one before stays in force")
        );

        std::fs::write(path("three"), "port: 9103").unwrap();
        link("three");
        assert!(configuration.refresh().await);
        assert_eq!(configuration.problem(), None);

        std::fs::remove_file(path("exporter.yaml")).unwrap();
        assert!(!configuration.refresh().await);
        assert_eq!(configuration.current().unwrap().port, Some(9103));
        assert!(configuration.problem().is_some());
    }

    #[test]
    fn a_file_system_that_hangs_holds_one_thread_and_the_old_configuration() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exporter.yaml");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(2)
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut configuration = Configuration::file(path.clone());
            std::fs::write(&path, "port: 9101").unwrap();
            while !configuration.refresh().await {} // a slow machine may need more than one look

            // A pipe that nobody writes to: opening it hangs.
            std::fs::remove_file(&path).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &path,
                rustix::fs::FileType::Fifo,
                rustix::fs::Mode::RWXU,
                0,
            )
            .unwrap();
            for _ in 0..4 {
                // One that is dropped while it waits changes nothing.
                let _ = tokio::time::timeout(Duration::from_millis(1), configuration.refresh()).await;
                assert!(!configuration.refresh().await);
                assert_eq!(configuration.current().unwrap().port, Some(9101));
                assert!(configuration.problem().unwrap().contains("does not answer"));
            }
            let writer = path.clone();
            let other = tokio::task::spawn_blocking(move || std::fs::write(writer, "port: 9102"));
            other.await.unwrap().unwrap();
            while !configuration.refresh().await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_eq!(configuration.current().unwrap().port, Some(9102));
            assert_eq!(configuration.problem(), None);
        });
        runtime.shutdown_background();
    }
}
