//! The condition Selected: whether the Prometheus stack takes up what was made for a monitor. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use serde_json::Value;

use super::landscape::{Access, Place, View};
use crate::plan::injection::selects;
use crate::plan::{Kind, Object};

type Labels = BTreeMap<String, String>;

/// The condition Selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// Reason of the condition.
    pub reason: &'static str,
    /// One sentence, with the mend in it.
    pub message: String,
}

impl Selection {
    fn unknown(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            status: "Unknown",
            reason,
            message: message.into(),
        }
    }

    /// What is selected and then refused is not taken up. Nobody says when that is over: the Event that told of it goes within an
    /// hour, so its time stands in the message.
    #[must_use]
    pub fn unless_refused(self, scrape: Option<(String, Option<Time>)>) -> Self {
        match scrape {
            Some((why, when)) if self.status == "True" => {
                let when = when.map(|Time(when)| format!(" at {when}")).unwrap_or_default();
                let message = format!(
                    "prometheus-operator refused the PodMonitor{when}: {why}; correct spec.scrape or what it names, and this goes \
                     within an hour"
                );
                Self::bad("ScrapeRefused", message)
            }
            _ => self,
        }
    }

    fn bad(reason: &'static str, message: String) -> Self {
        Self {
            status: "False",
            reason,
            message,
        }
    }
}

/// Where the objects of a monitor are.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a> {
    /// Their namespace.
    pub namespace: &'a str,
    /// Its labels; `None` if they can't be read.
    pub labels: Option<&'a Labels>,
}

/// Judges whether one Prometheus selects the rule and the pod monitor, and an Alertmanager every configuration. Where only those
/// of some namespaces are seen, none of them may be the one that does, so that nobody is wrong.
#[must_use]
pub fn selection(view: &View, home: Home<'_>, objects: &[Object]) -> Selection {
    let verdict = judged(view, home, objects);
    if view.only.is_empty() || verdict.status != "False" {
        return verdict;
    }
    let seen = view.only.join(", ");
    let message = format!(
        "the operator looks only into the namespaces that it watches ({seen}), and there it found: {}",
        verdict.message
    );
    Selection::unknown("NotReadable", message)
}

fn judged(view: &View, home: Home<'_>, objects: &[Object]) -> Selection {
    let (prometheuses, alertmanagers) = match (&view.prometheuses, &view.alertmanagers) {
        (Access::Known(prometheuses), Access::Known(alertmanagers)) => (prometheuses, alertmanagers),
        (Access::Refused, _) | (_, Access::Refused) => {
            return Selection::unknown(
                "NotReadable",
                "the operator may not read the Prometheus and Alertmanager objects",
            );
        }
        _ => return Selection::unknown("PrometheusOperatorMissing", "prometheus-operator is not installed"),
    };
    let of = |kind| objects.iter().filter(move |object| object.kind == kind);

    let by_prometheus = prometheuses.iter().map(|(place, spec)| {
        let rules = of(Kind::PrometheusRule).map(|object| {
            fits(
                home,
                place,
                object,
                spec.rule_selector.as_ref(),
                spec.rule_namespace_selector.as_ref(),
            )
        });
        let pods = of(Kind::PodMonitor).map(|object| {
            fits(
                home,
                place,
                object,
                spec.pod_monitor_selector.as_ref(),
                spec.pod_monitor_namespace_selector.as_ref(),
            )
        });
        (place, rules.chain(pods).collect::<Vec<_>>())
    });
    let (prometheus, first) = match best("Prometheus", by_prometheus) {
        Ok(place) => (place, None),
        Err(verdict) => (None, Some(verdict)),
    };
    let routes: Vec<_> = of(Kind::AlertmanagerConfig).collect();
    let by_alertmanager = alertmanagers.iter().map(|(place, spec)| {
        let selector = spec.alertmanager_config_selector.as_ref();
        let verdicts = routes.iter().map(|object| {
            fits(
                home,
                place,
                object,
                selector,
                spec.alertmanager_config_namespace_selector.as_ref(),
            )
        });
        (place, verdicts.collect::<Vec<_>>())
    });
    let second = if routes.is_empty() {
        Ok(None)
    } else {
        best("Alertmanager", by_alertmanager)
    };
    match (first, second) {
        (Some(verdict), _) | (None, Err(verdict)) => verdict,
        (None, Ok(alertmanager)) => {
            let named = |kind: &str, (namespace, name): &Place| format!("{kind} {namespace}/{name}");
            let prometheus = prometheus.map(|place| named("Prometheus", place)).unwrap_or_default();
            let alertmanager = alertmanager.map(|place| format!(" and {}", named("Alertmanager", place)));
            let message = format!("selected by {prometheus}{}", alertmanager.unwrap_or_default());
            Selection {
                status: "True",
                reason: "Selected",
                message,
            }
        }
    }
}

/// Why an object is not selected.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Miss {
    /// The consumer selects nothing at all; its field that is missing.
    Nothing(&'static str),
    /// The object lacks labels.
    Labels { object: String, wants: String },
    /// The namespace lacks labels, or is not the consumer's own.
    Namespace(String),
    /// The labels of the namespace can't be read.
    Unreadable,
}

/// The consumer that takes everything, else the condition that the nearest one gives.
fn best<'a>(
    kind: &'static str,
    consumers: impl Iterator<Item = (&'a Place, Vec<Result<(), Miss>>)>,
) -> Result<Option<&'a Place>, Selection> {
    let mut nearest: Option<(&Place, usize, Miss)> = None;
    for (place, verdicts) in consumers {
        let misses: Vec<_> = verdicts.into_iter().filter_map(Result::err).collect();
        let Some(first) = misses.first().cloned() else {
            return Ok(Some(place));
        };
        if nearest.as_ref().is_none_or(|(_, count, _)| misses.len() < *count) {
            nearest = Some((place, misses.len(), first));
        }
    }
    let Some(((namespace, name), _, miss)) = nearest else {
        return Err(Selection::bad(
            "NoConsumer",
            format!("there is no {kind} object; create one"),
        ));
    };
    let who = format!("{kind} {namespace}/{name}");
    Err(match miss {
        Miss::Unreadable => Selection::unknown("NotReadable", "the operator may not read the labels of the namespace"),
        Miss::Nothing(field) => Selection::bad("NotSelected", format!("{who} selects nothing; set its spec.{field}")),
        Miss::Labels { object, wants } => Selection::bad(
            "NotSelected",
            format!("{who} does not select {object}: it wants {wants}; add it to spec.objectLabels"),
        ),
        Miss::Namespace(why) => {
            Selection::bad("NotSelected", format!("{who} does not look into this namespace: {why}"))
        }
    })
}

fn fits(
    home: Home<'_>,
    (consumer, _): &Place,
    object: &Object,
    selector: Option<&LabelSelector>,
    namespaces: Option<&LabelSelector>,
) -> Result<(), Miss> {
    let selector = selector.ok_or(Miss::Nothing(match object.kind {
        Kind::PodMonitor => "podMonitorSelector",
        Kind::AlertmanagerConfig => "alertmanagerConfigSelector",
        Kind::PrometheusRule | Kind::ConfigMap => "ruleSelector",
    }))?;
    match namespaces {
        None if consumer == home.namespace => {}
        None => {
            return Err(Miss::Namespace(format!(
                "it looks into its own, {consumer}, only; set its namespace selector"
            )));
        }
        Some(wanted) if is_empty(wanted) => {}
        Some(wanted) => {
            let labels = home.labels.ok_or(Miss::Unreadable)?;
            if !selects(wanted, labels) {
                return Err(Miss::Namespace(format!(
                    "it wants {}; label namespace {}",
                    written(wanted, labels),
                    home.namespace
                )));
            }
        }
    }
    let labels = labels(object);
    if selects(selector, &labels) {
        return Ok(());
    }
    let object = format!("{} {}", object.kind.api_resource().kind, object.name);
    Err(Miss::Labels {
        object,
        wants: written(selector, &labels),
    })
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}

fn labels(object: &Object) -> Labels {
    let labels = object.json["metadata"]["labels"].as_object();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    labels
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), text(value)?)))
        .collect()
}

/// The parts of a selector that these labels do not meet, as a person would write them.
fn written(selector: &LabelSelector, labels: &Labels) -> String {
    let equal = selector
        .match_labels
        .iter()
        .flatten()
        .filter(|(key, value)| labels.get(*key) != Some(value));
    let mut parts: Vec<String> = equal.map(|(key, value)| format!("label {key}={value}")).collect();
    for expression in selector.match_expressions.iter().flatten() {
        let alone = LabelSelector {
            match_expressions: Some(vec![expression.clone()]),
            match_labels: None,
        };
        if !selects(&alone, labels) {
            let values = expression.values.as_deref().unwrap_or_default().join(", ");
            parts.push(match expression.operator.as_str() {
                "Exists" => format!("label {}", expression.key),
                "DoesNotExist" => format!("no label {}", expression.key),
                "NotIn" => format!("label {} other than {values}", expression.key),
                _ => format!("label {} of {values}", expression.key),
            });
        }
    }
    parts.join(" and ")
}

#[cfg(test)]
mod tests;
