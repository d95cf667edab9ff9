//! The statuses that were written, until the watch has shown them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::Error;
use crate::api::RoseyMonitor;
use crate::api::status::MonitorStatus;
use crate::cluster::client::{RequestError, answered, is_other_object};
use crate::operator::FIELD_MANAGER;
use crate::operator::key::Key;
use crate::operator::leader::Leadership;
use crate::operator::monitors::Monitors;
use crate::operator::owned::parse_version;

/// The statuses that were written, until the watch has shown them.
#[derive(Debug)]
pub struct Reports {
    monitors: Monitors,
    written: Mutex<HashMap<Key, Report>>,
}

#[derive(Debug)]
struct Report {
    uid: Option<String>,
    version: u64,
    status: MonitorStatus,
}

/// A status that stands, and the version of the monitor that has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// The status, but for what is not the operator's.
    pub status: MonitorStatus,
    /// The version.
    pub version: u64,
}

impl Reports {
    /// Has written nothing yet.
    #[must_use]
    pub fn new(monitors: Monitors) -> Self {
        Self {
            monitors,
            written: Mutex::default(),
        }
    }

    /// The status that stands now: that of the cache, unless ours is newer.
    #[must_use]
    pub fn standing(&self, monitor: &RoseyMonitor) -> Standing {
        let key = Key::of(monitor);
        // The cache may have gone on since the reconcile began. Not with another spec: that one has a reconcile of its own.
        let seen = self.monitors.get(&key).filter(|seen| {
            let (now, then) = (&seen.metadata, &monitor.metadata);
            (&now.uid, now.generation) == (&then.uid, then.generation) && version(seen) > version(monitor)
        });
        let seen = seen.as_deref().unwrap_or(monitor);
        match self.lock().get(&key) {
            Some(report) if report.uid == monitor.metadata.uid && report.version > version(seen) => Standing {
                status: report.status.clone(),
                version: report.version,
            },
            _ => Standing {
                status: MonitorStatus {
                    deployments: None,
                    ..seen.status.clone().unwrap_or_default()
                },
                version: version(seen),
            },
        }
    }

    /// Forgets what was written, once the cache has it.
    pub fn shown(&self, key: &Key, monitor: &RoseyMonitor) {
        let mut written = self.lock();
        if written
            .get(key)
            .is_some_and(|report| report.uid != monitor.metadata.uid || report.version <= version(monitor))
        {
            written.remove(key);
        }
    }

    /// Forgets a monitor that is gone.
    pub fn forget(&self, key: &Key) {
        self.lock().remove(key);
    }

    /// Forgets everything: another replica may have written since.
    pub fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Report>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the status of a monitor over `version` and answers true, or false if the monitor is gone. `status.deployments`
    /// is not ours and stays.
    ///
    /// # Errors
    /// The API server's, or this replica does not lead, or the monitor has another version by now.
    pub async fn write(
        &self,
        client: &Client,
        leadership: &Leadership,
        monitor: &RoseyMonitor,
        version: u64,
        status: MonitorStatus,
    ) -> Result<bool, Error> {
        let namespace = monitor.namespace().unwrap_or_default();
        let api: Api<PartialObjectMeta<RoseyMonitor>> = Api::namespaced(client.clone(), &namespace);
        let name = monitor.name_any();
        // The version keeps what was observed of one spec, or of a deleted monitor, from the next one: the API server does not
        // compare the uid of an object whose status is written.
        let patch = Patch::Apply(json!({
            "apiVersion": "rosey.dev/v1alpha1",
            "kind": "RoseyMonitor",
            "metadata": {"name": name, "namespace": namespace, "uid": monitor.uid(), "resourceVersion": version.to_string()},
            "status": status,
        }));
        leadership.check()?;
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let written = match answered(api.patch_status(&name, &parameters, &patch)).await {
            Err(RequestError::Refused(error)) if gone(&error) => return Ok(false),
            Err(RequestError::Refused(error)) if changed(&error) => return Err(Error::Changed),
            written => written?,
        };
        let key = Key::of(monitor);
        let report = Report {
            uid: monitor.uid(),
            version: parse_version(written.metadata.resource_version.as_deref()),
            status,
        };
        let mut reports = self.lock();
        // The watch may have been faster than the answer.
        let shown = self
            .monitors
            .get(&key)
            .is_some_and(|seen| seen.metadata.uid == report.uid && self::version(&seen) >= report.version);
        if !shown {
            reports.insert(key, report);
        }
        Ok(true)
    }
}

fn version(monitor: &RoseyMonitor) -> u64 {
    parse_version(monitor.metadata.resource_version.as_deref())
}

fn gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_not_found()) || is_other_object(error)
}

fn changed(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_conflict())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use kube::client::Body;
    use kube::runtime::reflector::store::Writer;
    use kube::runtime::watcher::Event;
    use serde_json::Value;

    use super::*;
    use crate::operator::monitors;

    fn monitor(uid: &str, version: u64) -> Value {
        json!({
            "apiVersion": "rosey.dev/v1alpha1", "kind": "RoseyMonitor",
            "metadata": {"namespace": "bots", "name": "rosey", "uid": uid, "generation": 1, "resourceVersion": version.to_string()},
            "spec": {"environment": "test", "selector": {}},
        })
    }

    fn typed(monitor: Value) -> RoseyMonitor {
        serde_json::from_value(monitor).unwrap()
    }

    fn said(reason: &str) -> MonitorStatus {
        MonitorStatus {
            reason: Some(reason.into()),
            ..MonitorStatus::default()
        }
    }

    fn reports() -> (Reports, Writer<RoseyMonitor>) {
        let (monitors, feed) = monitors::pair();
        (Reports::new(monitors), feed)
    }

    /// Writes the status of version 7 to an API server that has to be asked for that version, and gives this answer.
    async fn wrote(reports: &Reports, code: u16, answer: Value) -> Result<bool, Error> {
        let (service, mut handle) = tower_test::mock::pair::<axum::http::Request<Body>, axum::http::Response<Body>>();
        let server = tokio::spawn(async move {
            let (request, send) = handle.next_request().await.unwrap();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let body: Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(body["metadata"]["resourceVersion"], "7");
            let answer = Body::from(answer.to_string().into_bytes());
            send.send_response(axum::http::Response::builder().status(code).body(answer).unwrap());
        });
        let client = Client::new(service, "default");
        let result = reports
            .write(
                &client,
                &Leadership::fixed(true),
                &typed(monitor("m", 7)),
                7,
                said("ours"),
            )
            .await;
        server.await.unwrap();
        result
    }

    #[tokio::test]
    async fn a_status_is_written_over_the_version_that_was_read_or_not_at_all() {
        let refused = |code: u16, reason: &str, field: &str| {
            json!({
                "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": "m",
                "details": {"causes": [{"reason": "r", "message": "m", "field": field}]},
            })
        };
        let (reports, _feed) = reports();
        assert_eq!(wrote(&reports, 200, monitor("m", 8)).await.ok(), Some(true));
        assert_eq!(
            wrote(&reports, 404, refused(404, "NotFound", "")).await.ok(),
            Some(false)
        );
        let result = wrote(&reports, 422, refused(422, "Invalid", "metadata.uid")).await;
        assert_eq!(result.ok(), Some(false));
        let result = wrote(&reports, 422, refused(422, "Invalid", "status.reason")).await;
        assert!(matches!(result, Err(Error::Request(_))), "{result:?}");
        let result = wrote(&reports, 409, refused(409, "Conflict", "")).await;
        assert!(matches!(result, Err(Error::Changed)), "{result:?}");
    }

    #[tokio::test]
    async fn what_was_written_stands_until_the_cache_has_it_and_is_not_kept_any_longer() {
        let (reports, mut feed) = reports();
        let read = typed(monitor("m", 7));
        wrote(&reports, 200, monitor("m", 8)).await.unwrap();
        let ours = Standing {
            status: said("ours"),
            version: 8,
        };
        assert_eq!(reports.standing(&read), ours);

        let mut shown = monitor("m", 8);
        shown["status"] = json!({"reason": "ours"});
        let shown = typed(shown);
        feed.apply_watcher_event(&Event::Apply(shown.clone()));
        reports.shown(&Key::of(&shown), &shown);
        assert!(reports.lock().is_empty());
        // A reconcile that began before goes by what the cache has now.
        assert_eq!(reports.standing(&read), ours);
        // And an answer that comes after it is nothing to keep.
        wrote(&reports, 200, monitor("m", 8)).await.unwrap();
        assert!(reports.lock().is_empty());
    }

    #[tokio::test]
    async fn a_reconcile_of_an_old_spec_does_not_go_by_the_status_of_the_new_one() {
        let (reports, mut feed) = reports();
        let mut newer = monitor("m", 9);
        newer["metadata"]["generation"] = json!(2);
        feed.apply_watcher_event(&Event::Apply(typed(newer)));
        assert_eq!(reports.standing(&typed(monitor("m", 7))).version, 7);
    }
}
