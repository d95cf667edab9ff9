//! The client of the API server.

use std::time::Duration;

use kube::config::{InferConfigError, KubeConfigOptions};
use kube::{Client, Config};

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither a kubeconfig nor a service account was found.
    #[error("no cluster to talk to: {0}")]
    Infer(#[from] Box<InferConfigError>),
    /// The kubeconfig can't be read.
    #[error("the kubeconfig is unusable: {0}")]
    Kubeconfig(#[from] Box<kube::config::KubeconfigError>),
    /// The client can't be made of it.
    #[error("the configuration makes no client: {0}")]
    Client(#[from] Box<kube::Error>),
}

/// Installs the one TLS provider of the process. The first thing that `main` does; later calls change nothing.
pub fn install_tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// A client from the kubeconfig (`context`, if given) or, in a pod, from its service account.
///
/// It never repeats a request by itself: whoever writes has to decide again whether it still may.
///
/// # Errors
/// No cluster is configured, or its configuration is unusable.
pub async fn connect(context: Option<&str>) -> Result<Client, Error> {
    let mut config = match context {
        Some(context) => {
            let options = KubeConfigOptions {
                context: Some(context.into()),
                ..KubeConfigOptions::default()
            };
            Config::from_kubeconfig(&options).await.map_err(Box::new)?
        }
        None => Config::infer().await.map_err(Box::new)?,
    };
    config.default_retry = false;
    Ok(Client::try_from(config).map_err(Box::new)?)
}

/// How long the API server may take for a small request.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request has no result.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// It was refused, or could not be made.
    #[error("{}", said(.0))]
    Refused(#[from] Box<kube::Error>),
    /// The API server did not answer in time.
    #[error("no answer within {} s", PATIENCE.as_secs())]
    Timeout,
}

/// Waits for the answer to a small request, but not for ever: the client by itself would, because its watches have to.
///
/// # Errors
/// The request's, or no answer came in time.
pub async fn answered<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, RequestError> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(answer) => Ok(answer.map_err(Box::new)?),
        Err(_) => Err(RequestError::Timeout),
    }
}

/// Whether a patch with a uid was refused because the object of this name is another one by now, or gone.
#[must_use]
pub fn is_other_object(error: &kube::Error) -> bool {
    let kube::Error::Api(status) = error else { return false };
    let immutable = || {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes.into_iter().any(|cause| cause.field == "metadata.uid")
    };
    // No name can look like these words.
    let mismatch = ["UID in precondition", "uid mismatch"];
    status.is_conflict() && mismatch.iter().any(|words| status.message.contains(words))
        || status.code == 422 && immutable()
}

/// Longest text of an API server that is repeated, in characters: a webhook that refuses may say anything.
const LONGEST: usize = 512;

/// What the API server said, in its own words: kube's text repeats the whole answer in Rust's debug form.
#[must_use]
pub fn said(error: &kube::Error) -> String {
    let mut said = match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        other => other.to_string(),
    };
    if let Some((end, _)) = said.char_indices().nth(LONGEST) {
        said.truncate(end);
        said.push('…');
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_api_server_says_is_repeated_up_to_a_bound() {
        let says = |message: &str| {
            let mut status = kube::core::Status::failure(message, "Invalid");
            status.code = 422;
            said(&kube::Error::Api(Box::new(status)))
        };
        assert_eq!(says("no"), "no");
        assert_eq!(says(&"€".repeat(LONGEST)), "€".repeat(LONGEST));
        assert_eq!(says(&"€".repeat(LONGEST + 1)), format!("{}…", "€".repeat(LONGEST)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_without_an_answer_ends() {
        let silence = std::future::pending::<Result<(), kube::Error>>();
        assert!(matches!(answered(silence).await, Err(RequestError::Timeout)));
    }
}
