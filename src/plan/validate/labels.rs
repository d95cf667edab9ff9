//! Names, labels and selectors, as Kubernetes defines them. A selector that it would refuse makes prometheus-operator drop
//! the whole `PodMonitor`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::Findings;
use crate::api::MONITOR_LABEL;
use crate::api::forms::{is_label_key, is_label_value};
use crate::api::monitor::LabelValue;
use crate::api::schema::below;
use crate::plan::MANAGED_BY_LABEL;

pub fn selector(found: &mut Findings, field: &str, selector: &LabelSelector) {
    let labels = selector.match_labels.iter().flatten();
    let expressions = selector.match_expressions.iter().flatten();
    if labels.clone().next().is_none() && expressions.clone().next().is_none() {
        found.problem(
            field,
            "must name at least one label; an empty selector would take every pod of the namespace",
        );
    }
    for (key, value) in labels {
        let field = below(&format!("{field}.matchLabels"), key);
        check_key(found, &field, key);
        check_value(found, &field, value);
    }
    for (n, expression) in expressions.enumerate() {
        let field = format!("{field}.matchExpressions[{n}]");
        check_key(found, &format!("{field}.key"), &expression.key);
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => {
                found.problem(
                    format!("{field}.values"),
                    format!("must not be empty with operator {}", expression.operator),
                );
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                found.problem(
                    format!("{field}.values"),
                    format!("must be empty with operator {}", expression.operator),
                );
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            other => found.problem(
                format!("{field}.operator"),
                format!("{other:?} is none of In, NotIn, Exists, DoesNotExist"),
            ),
        }
        for (m, value) in values.iter().enumerate() {
            check_value(found, &format!("{field}.values[{m}]"), value);
        }
    }
}

pub fn object_labels(found: &mut Findings, field: &str, labels: &BTreeMap<String, LabelValue>) {
    for (key, value) in labels {
        let field = below(field, key);
        check_key(found, &field, key);
        check_value(found, &field, &value.0);
        if key == MONITOR_LABEL || key == MANAGED_BY_LABEL {
            found.problem(
                field,
                "is set by the operator, which finds its objects by it; choose another label",
            );
        }
    }
}

fn check_key(found: &mut Findings, field: &str, key: &str) {
    if !is_label_key(key) {
        found.problem(
            field,
            format!("{key:?} is not a label key; write a name such as app or example.org/name"),
        );
    }
}

fn check_value(found: &mut Findings, field: &str, value: &str) {
    if !is_label_value(value) {
        found.problem(
            field,
            format!("{value:?} is not a label value; write at most 63 letters, digits, -, _ and ."),
        );
    }
}
