//! The API server's audit log: who wrote what, and how often.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

use anyhow::{Context, Result};
use kube::Client;
use serde::Deserialize;
use serde_json::Value;

use crate::wait;

/// A place in the audit log. Everything that was answered before [`Audit::mark`] returned lies before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(u64);

/// Reads the audit log.
#[derive(Clone)]
pub struct Audit {
    pub(crate) log: PathBuf,
    pub(crate) client: Client,
}

/// One answered request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// `ResponseComplete`, or `ResponseStarted` for a watch that runs.
    pub stage: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// The path and query as sent.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Who asked.
    pub user: User,
    /// What the client called itself.
    #[serde(default)]
    pub user_agent: String,
    /// Which object; absent for paths such as `/version`.
    #[serde(default)]
    pub object_ref: ObjectRef,
    /// What was answered.
    #[serde(default)]
    pub response_status: ResponseStatus,
    /// The body sent, where the lab was built with `AuditLevel::RequestResponse`.
    #[serde(default)]
    pub request_object: Value,
    /// The body answered, likewise.
    #[serde(default)]
    pub response_object: Value,
    /// When it arrived, RFC 3339 with microseconds.
    pub request_received_timestamp: String,
}

/// Who asked.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct User {
    /// The user's name as the token file has it.
    #[serde(default)]
    pub username: String,
    /// What else the API server knows of the user.
    #[serde(default)]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The pod whose token was shown, for a service account.
    #[must_use]
    pub fn pod(&self) -> Option<&str> {
        let names = self.extra.get("authentication.kubernetes.io/pod-name")?;
        names.first().map(String::as_str)
    }
}

/// Which object a request was about.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default, rename_all = "camelCase")]
pub struct ObjectRef {
    /// The API group, empty for the core one.
    pub api_group: String,
    /// The plural, for example `pods`.
    pub resource: String,
    /// `status`, `binding` …, or empty.
    pub subresource: String,
    /// Empty for cluster-wide objects.
    pub namespace: String,
    /// Empty for lists.
    pub name: String,
}

/// What was answered.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ResponseStatus {
    /// The HTTP status.
    pub code: u16,
    /// Why it was refused, if it was.
    pub message: String,
}

impl Request {
    /// True for create, update, patch and delete, whether they changed anything or not.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        )
    }

    /// True where the user lacked the right.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        self.response_status.code == 403
    }
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} {} {} -> {}",
            self.user.username, self.verb, self.request_uri, self.response_status.code
        )
    }
}

impl Audit {
    /// The place after everything that has been answered so far.
    ///
    /// # Errors
    /// When the API server or its log can't be read.
    pub async fn mark(&self) -> Result<Mark> {
        // A request that nobody else sends; once its line is there, the lines of earlier requests are too.
        let path = format!("/api/v1/namespaces/audit-mark-{}", crate::random_hex());
        let start = self.length()?;
        // It answers 404: there is no such namespace.
        let _ = self
            .client
            .request_text(axum::http::Request::get(&path).body(Vec::new())?)
            .await;
        wait::eventually(wait::PATIENCE, "the audit log to catch up", async || {
            let text = self.text(start)?;
            Ok(text.find(&path).map(|at| {
                let end = text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1);
                Mark(start + end as u64)
            }))
        })
        .await
    }

    /// Every request that was answered after `mark` and before now.
    ///
    /// # Errors
    /// When the API server or its log can't be read.
    pub async fn since(&self, mark: Mark) -> Result<Vec<Request>> {
        let Mark(end) = self.mark().await?;
        let text = self.text(mark.0)?;
        let length = usize::try_from(end.saturating_sub(mark.0))?.min(text.len());
        text.get(..length)
            .context("the audit log changed while it was read")?
            .lines()
            .filter(|line| !line.contains("/audit-mark-"))
            .map(|line| serde_json::from_str(line).with_context(|| format!("read a line of the audit log: {line}")))
            .collect()
    }

    /// Every request of the lab so far.
    ///
    /// # Errors
    /// When the API server or its log can't be read.
    pub async fn all(&self) -> Result<Vec<Request>> {
        self.since(Mark::default()).await
    }

    /// What `user` asked for since `mark`.
    ///
    /// # Errors
    /// When the API server or its log can't be read.
    pub async fn requests_by(&self, user: &str, mark: Mark) -> Result<Vec<Request>> {
        let mut requests = self.since(mark).await?;
        requests.retain(|request| request.user.username == user);
        Ok(requests)
    }

    /// What `user` created, updated, patched or deleted since `mark`, refused attempts included.
    ///
    /// # Errors
    /// When the API server or its log can't be read.
    pub async fn writes_by(&self, user: &str, mark: Mark) -> Result<Vec<Request>> {
        let mut requests = self.requests_by(user, mark).await?;
        requests.retain(Request::is_write);
        Ok(requests)
    }

    fn length(&self) -> Result<u64> {
        Ok(std::fs::metadata(&self.log)
            .context("the API server has written no audit log yet")?
            .len())
    }

    fn text(&self, from: u64) -> Result<String> {
        let mut file = File::open(&self.log).with_context(|| format!("open {}", self.log.display()))?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
