//! What the API server itself says of its calls of a webhook.

use std::fmt;
use std::ops::Sub;

use anyhow::{Context, Result};
use kube::Client;

/// The webhook that pods go through.
const INJECT: &str = "inject.rosey.dev";

/// Calls of one webhook, and how long the API server waited for all of them together: its own histogram
/// `apiserver_admission_webhook_admission_duration_seconds`, which ends where the answer is there and its patch applied.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Calls {
    /// How many.
    pub count: f64,
    /// Seconds of all of them.
    pub seconds: f64,
}

impl Calls {
    /// Those so far for pods, with whatever answer; of a webhook that was never called, none.
    ///
    /// # Errors
    /// When the API server does not give its metrics to this client.
    pub async fn for_pods(client: &Client) -> Result<Self> {
        let request = axum::http::Request::get("/metrics").body(Vec::new())?;
        let metrics = client
            .request_text(request)
            .await
            .context("the API server's own metrics")?;
        Ok(Self::read(&metrics, INJECT))
    }

    fn read(metrics: &str, webhook: &str) -> Self {
        let webhook = format!("name=\"{webhook}\"");
        let sum = |part: &str| {
            let start = format!("apiserver_admission_webhook_admission_duration_seconds_{part}{{");
            metrics
                .lines()
                .filter(|line| line.starts_with(&start) && line.contains(&webhook))
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
                .sum()
        };
        Self {
            count: sum("count"),
            seconds: sum("sum"),
        }
    }
}

impl Sub for Calls {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            count: self.count - earlier.count,
            seconds: self.seconds - earlier.seconds,
        }
    }
}

impl fmt::Display for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} calls, {:.1} ms each",
            self.count,
            self.seconds / self.count * 1e3
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_one_webhook_are_added_whatever_was_answered() {
        let metrics = "\
# TYPE apiserver_admission_webhook_admission_duration_seconds histogram
apiserver_admission_webhook_admission_duration_seconds_bucket{name=\"a.example.org\",operation=\"CREATE\",le=\"0.005\"} 7
apiserver_admission_webhook_admission_duration_seconds_sum{name=\"a.example.org\",operation=\"CREATE\",rejected=\"false\"} 0.5
apiserver_admission_webhook_admission_duration_seconds_count{name=\"a.example.org\",operation=\"CREATE\",rejected=\"false\"} 200
apiserver_admission_webhook_admission_duration_seconds_sum{name=\"a.example.org\",operation=\"CREATE\",rejected=\"true\"} 0.1
apiserver_admission_webhook_admission_duration_seconds_count{name=\"a.example.org\",operation=\"CREATE\",rejected=\"true\"} 100
apiserver_admission_webhook_admission_duration_seconds_sum{name=\"b.example.org\",operation=\"CREATE\",rejected=\"false\"} 9
apiserver_admission_webhook_admission_duration_seconds_count{name=\"b.example.org\",operation=\"CREATE\",rejected=\"false\"} 9
";
        let calls = Calls::read(metrics, "a.example.org");
        assert_eq!(calls.to_string(), "300 calls, 2.0 ms each");
        let none = Calls::read(metrics, "c.example.org");
        assert_eq!((none.count, calls - none), (0.0, calls));
    }
}
