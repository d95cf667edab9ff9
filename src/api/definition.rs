//! The custom resource definition, generated from the types.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use super::RoseyMonitor;
use super::forms::{LABEL_VALUE, QUANTITY};

/// The custom resource definition as it is installed.
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    let mut crd = RoseyMonitor::crd();
    for version in &mut crd.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|s| s.open_api_v3_schema.as_mut()) {
            simplify(schema);
            schema.title = None;
            // To kstatus, by which Helm and Flux wait, an object without conditions is done: a new monitor says that nobody has looked at it.
            if let Some(status) = field(schema, "status") {
                status.default = Some(JSON(serde_json::json!({"observedGeneration": -1})));
            }
            for (path, complete) in [
                (&["spec", "selector"][..], selector as fn(&mut _)),
                (&["spec", "exporter", "resources"], resources),
            ] {
                path.iter().copied().try_fold(&mut *schema, field).map(complete);
            }
        }
    }
    crd
}

/// The schema of the resource's only version.
pub(super) fn schema() -> &'static JSONSchemaProps {
    static SCHEMA: LazyLock<JSONSchemaProps> = LazyLock::new(|| {
        let version = crd().spec.versions.into_iter().next();
        version
            .and_then(|v| v.schema)
            .and_then(|s| s.open_api_v3_schema)
            .unwrap_or_default()
    });
    &SCHEMA
}

/// Everything that stands directly below this schema.
fn children(schema: &mut JSONSchemaProps) -> impl Iterator<Item = &mut JSONSchemaProps> {
    let items = match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => Some(&mut **items),
        _ => None,
    };
    let additional = match &mut schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(additional)) => Some(&mut **additional),
        _ => None,
    };
    schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
        .chain(items)
        .chain(additional)
}

fn field<'a>(schema: &'a mut JSONSchemaProps, name: &str) -> Option<&'a mut JSONSchemaProps> {
    schema.properties.as_mut()?.get_mut(name)
}

fn simplify(schema: &mut JSONSchemaProps) {
    // The API server drops a null where a field is not nullable, so `image:` with nothing behind it means the default either way;
    // with the flag the null would be stored.
    schema.nullable = None;
    // Ranges say what the widths of our integers would; of the formats only this one is checked.
    schema.format.take_if(|format| format != "date-time");
    if let Some(description) = &mut schema.description {
        *description = description
            .split("\n\n")
            .map(|paragraph| paragraph.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
            .join("\n\n");
    }
    children(schema).for_each(simplify);
}

/// What a label selector's own Go type says and its generated schema lost.
fn selector(schema: &mut JSONSchemaProps) {
    schema.x_kubernetes_map_type = Some("atomic".into());
    if let Some(labels) = field(schema, "matchLabels") {
        labels.description = Some("Labels that a pod must have, with these values. Example: `{app: rosey}`.".into());
        labels.max_properties = Some(32);
        children(labels).for_each(|value| {
            value.max_length = Some(63);
            value.pattern = Some(LABEL_VALUE.into());
        });
    }
    let Some(expressions) = field(schema, "matchExpressions") else {
        return;
    };
    expressions.description = Some("Further conditions on a pod's labels; all of them must hold.".into());
    expressions.max_items = Some(32);
    expressions.x_kubernetes_list_type = Some("atomic".into());
    for expression in children(expressions) {
        expression.description = Some("A condition on one label.".into());
        if let Some(key) = field(expression, "key") {
            key.description = Some("Name of the label. Example: `app`.".into());
            key.min_length = Some(1);
            key.max_length = Some(317);
        }
        if let Some(operator) = field(expression, "operator") {
            operator.description = Some("How the label and the values relate.".into());
            operator.enum_ = Some(
                ["In", "NotIn", "Exists", "DoesNotExist"]
                    .map(|name| JSON(name.into()))
                    .into(),
            );
        }
        if let Some(values) = field(expression, "values") {
            values.description = Some("Values for `In` and `NotIn`; none for `Exists` and `DoesNotExist`.".into());
            values.max_items = Some(64);
            values.x_kubernetes_list_type = Some("atomic".into());
            children(values).for_each(|value| {
                value.max_length = Some(63);
                value.pattern = Some(LABEL_VALUE.into());
            });
        }
    }
}

/// Requests and limits alone: a sidecar that is added at admission can claim no devices.
fn resources(schema: &mut JSONSchemaProps) {
    if let Some(properties) = &mut schema.properties {
        properties.remove("claims");
    }
    for (name, description) in [
        (
            "limits",
            "The most that the sidecar may use. Example: `{memory: 32Mi}`.",
        ),
        (
            "requests",
            "What is set aside for the sidecar. Example: `{cpu: 5m, memory: 8Mi}`.",
        ),
    ] {
        let Some(amounts) = field(schema, name) else { continue };
        amounts.description = Some(description.into());
        amounts.max_properties = Some(16);
        children(amounts).for_each(|quantity| {
            quantity.description = Some("A Kubernetes quantity. Examples: `5m`, `32Mi`.".into());
            quantity.max_length = Some(32);
            quantity.pattern = Some(QUANTITY.into());
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(schema: &mut JSONSchemaProps, path: &str, seen: &mut impl FnMut(&str, &JSONSchemaProps)) {
        seen(path, schema);
        for (name, property) in schema.properties.iter_mut().flatten() {
            walk(property, &format!("{path}.{name}"), seen);
        }
        let at = format!("{path}[]");
        schema.properties = None;
        children(schema).for_each(|child| walk(child, &at, seen));
    }

    #[test]
    fn every_field_is_described() {
        let mut fields = 0;
        walk(&mut schema().clone(), "", &mut |path, schema| {
            fields += 1;
            let described = schema
                .description
                .as_deref()
                .is_some_and(|text| text.len() > 5 && text.ends_with('.'));
            assert!(described || path.ends_with("[]"), "{path}: {:?}", schema.description);
        });
        assert!(fields > 100, "only {fields} fields were seen");
    }

    #[test]
    fn a_monitor_that_nobody_has_looked_at_says_so() {
        let status = field(&mut schema().clone(), "status").unwrap().default.clone().unwrap();
        let status: crate::api::status::MonitorStatus = serde_json::from_value(status.0).unwrap();
        assert_eq!(status.observed_generation, Some(-1));
        assert!(status.conditions.is_empty());
    }

    #[test]
    fn embedded_kubernetes_types_are_completed() {
        let mut schema = schema().clone();
        let mut at = |path: &[&str]| path.iter().copied().try_fold(&mut schema, field).unwrap().clone();
        assert_eq!(
            at(&["spec", "selector"]).x_kubernetes_map_type.as_deref(),
            Some("atomic")
        );
        assert_eq!(at(&["spec", "selector", "matchExpressions"]).max_items, Some(32));
        let resources = at(&["spec", "exporter", "resources"]).properties.unwrap();
        assert_eq!(resources.into_keys().collect::<Vec<_>>(), ["limits", "requests"]);
    }

    #[test]
    fn the_schema_is_bounded_and_free_of_noise() {
        walk(&mut schema().clone(), "", &mut |path, schema| {
            assert_eq!(schema.nullable, None, "{path}");
            assert!(
                matches!(schema.format.as_deref(), None | Some("date-time")),
                "{path}: {:?}",
                schema.format
            );
            if path.starts_with(".spec") && schema.type_.as_deref() == Some("array") {
                assert!(schema.max_items.is_some(), "{path} has no maxItems");
            }
            if path.starts_with(".spec") && schema.additional_properties.is_some() {
                assert!(schema.max_properties.is_some(), "{path} has no maxProperties");
            }
        });
    }
}
