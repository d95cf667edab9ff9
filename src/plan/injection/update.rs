//! The exporter of a pod that runs already: its image is changed in place, and back.
//!
//! Kubernetes lets nothing but the image of a container be changed. What happened stands in an annotation of the pod, so that
//! another leader can go on, or back, from there.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::container::{hash, written};
use super::pod::Pod;
use super::{image, obstacle, selects};
use crate::api::{INJECTED_ANNOTATION, RoseyMonitor, UPDATE_ANNOTATION};
use crate::plan::Platform;
use crate::sidecar::{CONFIG_VOLUME, CONTAINER, PUSH_VOLUME, STATE_VOLUME, WEB_VOLUME};

/// Longest reason that a note keeps, in characters.
const LONGEST_REASON: usize = 128;
/// Longest note that is read, in bytes: three names of at most 255 and a reason.
const LONGEST_NOTE: usize = 2048;

/// What a pod says of the last change of its exporter's image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Note {
    /// The image before.
    pub from: Box<str>,
    /// The image that it was changed to.
    pub to: Box<str>,
    /// ID of the container before; empty if there was none. While the status shows it, nothing has happened yet.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub container: Box<str>,
    /// Whether that container ran.
    #[serde(default)]
    pub ran: bool,
    /// When, in seconds since 1970.
    pub at: i64,
    /// Why the image was changed back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Box<str>>,
}

impl Note {
    /// Reads the annotation; what is not such a note is none.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > LONGEST_NOTE {
            return None;
        }
        serde_json::from_str(text).ok()
    }
}

/// What can be done about the exporter of a running pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Nothing is to be done.
    Nothing,
    /// JSON Patch operations that change the image, and say so.
    Patch(Vec<Value>),
    /// It stays as it is, for this reason.
    Left(String),
}

/// The change of a running pod's exporter to the image that a new pod of `monitor` would get. `pod` is the pod as the API server
/// has it, `monitors` are those of its namespace, `now` is in seconds since 1970.
#[must_use]
pub fn update<'a>(
    pod: &Value,
    monitor: &RoseyMonitor,
    monitors: impl IntoIterator<Item = &'a RoseyMonitor>,
    platform: &Platform,
    now: i64,
) -> Change {
    let Some(sidecar) = Sidecar::of(pod) else {
        return Change::Nothing;
    };
    let (wanted, name) = (image(monitor, platform), monitor.metadata.name.as_deref());
    if sidecar.image == wanted || name != Some(sidecar.monitor) {
        return Change::Nothing;
    }
    if let Err(reason) = replacement(pod, monitors, platform) {
        return Change::Left(reason);
    }
    if !is_way_back(sidecar.image, wanted, platform) {
        return Change::Left(format!(
            "its image {} is not under a prefix that the operator allows, so there would be no way back",
            sidecar.image
        ));
    }
    let status = sidecar.status();
    let note = Note {
        from: sidecar.image.into(),
        to: wanted.into(),
        container: status["containerID"].as_str().unwrap_or_default().into(),
        ran: status["state"]["running"].is_object(),
        at: now,
        failed: None,
    };
    sidecar
        .change(wanted, Some(&note))
        .map_or(Change::Nothing, Change::Patch)
}

/// The change back to the image before, because the new one did not run for this reason.
#[must_use]
pub fn back(pod: &Value, platform: &Platform, why: &str) -> Change {
    returned(pod, platform, |note| {
        Some(Note {
            failed: Some(why.chars().take(LONGEST_REASON).collect()),
            ..note
        })
    })
}

/// The change back to the image before, because nobody is there to judge the new one: the note goes, so that another monitor of the
/// same name may try it.
#[must_use]
pub fn undone(pod: &Value, platform: &Platform) -> Change {
    returned(pod, platform, |_| None)
}

/// The change back to the image before, with what the note becomes.
fn returned(pod: &Value, platform: &Platform, becomes: impl FnOnce(Note) -> Option<Note>) -> Change {
    let note = Pod(pod).annotation(UPDATE_ANNOTATION).and_then(Note::read);
    let (Some(sidecar), Some(note)) = (Sidecar::of(pod), note) else {
        return Change::Nothing;
    };
    if note.failed.is_some() || *note.to != *sidecar.image {
        return Change::Nothing;
    }
    // Whoever may write the annotation may not choose an image by it that a monitor could not name.
    if !is_way_back(&note.from, sidecar.image, platform) {
        return Change::Left(format!("the operator does not allow image {}", note.from));
    }
    let from = note.from.clone();
    sidecar
        .change(&from, becomes(note).as_ref())
        .map_or(Change::Nothing, Change::Patch)
}

/// Whether a new pod in place of this one would get the exporter of the one monitor that selects it.
///
/// # Errors
/// Why it would not.
pub fn replacement<'a>(
    pod: &Value,
    monitors: impl IntoIterator<Item = &'a RoseyMonitor>,
    platform: &Platform,
) -> Result<(), String> {
    let bare = without_exporter(pod);
    let bare = Pod(&bare);
    let labels = bare.labels();
    let selecting: Vec<_> = monitors
        .into_iter()
        .filter(|monitor| selects(&monitor.spec.selector, &labels))
        .collect();
    if selecting.is_empty() {
        return Err("no monitor selects this pod".into());
    }
    obstacle(&bare, &selecting, platform).map_or(Ok(()), Err)
}

/// Whether an image may be returned to: it is another version of the same, or one that a monitor may name.
fn is_way_back(from: &str, to: &str, platform: &Platform) -> bool {
    repository(from) == repository(to) || platform.allows_image(from)
}

/// The reference without tag and digest; a colon before the last slash belongs to a port.
fn repository(reference: &str) -> &str {
    let reference = reference.split_once('@').map_or(reference, |(before, _)| before);
    match reference.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => reference,
    }
}

/// The pod as it was before it got its exporter, as far as the decision reads it.
fn without_exporter(pod: &Value) -> Value {
    let mut bare = pod.clone();
    if Pod(pod).annotation(INJECTED_ANNOTATION).is_none() {
        return bare;
    }
    if let Some(annotations) = bare["metadata"]["annotations"].as_object_mut() {
        annotations.remove(INJECTED_ANNOTATION);
    }
    for (list, name) in [
        ("containers", CONTAINER),
        ("initContainers", CONTAINER),
        ("volumes", CONFIG_VOLUME),
        ("volumes", WEB_VOLUME),
        ("volumes", PUSH_VOLUME),
        ("volumes", STATE_VOLUME),
    ] {
        if let Some(items) = bare["spec"].get_mut(list).and_then(Value::as_array_mut) {
            items.retain(|item| item["name"] != name);
        }
    }
    bare
}

/// The exporter that a pod carries.
struct Sidecar<'a> {
    pod: Pod<'a>,
    monitor: &'a str,
    image: &'a str,
    container: &'a Value,
    /// `containers` or `initContainers`.
    list: &'static str,
    index: usize,
}

impl<'a> Sidecar<'a> {
    fn of(pod: &'a Value) -> Option<Self> {
        let injected = Pod(pod).annotation(INJECTED_ANNOTATION)?;
        let (list, index, container) = ["containers", "initContainers"].into_iter().find_map(|list| {
            let mut containers = pod["spec"][list].as_array()?.iter().enumerate();
            let (index, container) = containers.find(|(_, container)| container["name"] == CONTAINER)?;
            Some((list, index, container))
        })?;
        Some(Self {
            pod: Pod(pod),
            monitor: injected.split('@').next().unwrap_or_default(),
            image: container["image"].as_str()?,
            container,
            list,
            index,
        })
    }

    fn status(&self) -> &'a Value {
        const NONE: &Value = &Value::Null;
        let list = if self.list == "containers" {
            "containerStatuses"
        } else {
            "initContainerStatuses"
        };
        let mut statuses = self.pod.0["status"][list].as_array().into_iter().flatten();
        statuses.find(|status| status["name"] == CONTAINER).unwrap_or(NONE)
    }

    /// The operations that set the image and the annotations, if the pod still is what was read; without a note, that goes.
    fn change(&self, image: &str, note: Option<&Note>) -> Option<Vec<Value>> {
        let path = format!("/spec/{}/{}", self.list, self.index);
        let test = |path: &str, value: &Value| json!({ "op": "test", "path": path, "value": value });
        let mut container = written(self.container);
        container["image"] = json!(image);
        let mut operations = vec![
            test("/metadata/uid", &self.pod.0["metadata"]["uid"]),
            // The list may have changed since: an index alone says nothing.
            test(&format!("{path}/name"), &json!(CONTAINER)),
            test(&format!("{path}/image"), &json!(self.image)),
            json!({ "op": "replace", "path": format!("{path}/image"), "value": image }),
        ];
        let injected = format!("{}@{}", self.monitor, hash(&container));
        operations.extend(self.pod.annotate(INJECTED_ANNOTATION, &injected));
        match note {
            Some(note) => operations.extend(self.pod.annotate(UPDATE_ANNOTATION, &serde_json::to_string(note).ok()?)),
            None => operations.push(Pod::unannotate(UPDATE_ANNOTATION)),
        }
        Some(operations)
    }
}
