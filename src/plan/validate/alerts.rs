//! Which alerts are in force, at which levels.

use super::Findings;
use crate::api::alerts::{Level as AskedLevel, Override, Severity};
use crate::api::status::Skipped;
use crate::api::{Duration, RoseyMonitorSpec, Threshold};
use crate::catalogue::alert::{Level as CatalogueLevel, Unit};
use crate::catalogue::{self, Alert};

/// An alert in force.
#[derive(Debug)]
pub struct ResolvedAlert {
    /// Its row in the catalogue.
    pub alert: &'static Alert,
    /// Its levels; never empty.
    pub levels: Vec<ResolvedLevel>,
}

/// From when on an alert has a severity.
#[derive(Debug)]
pub struct ResolvedLevel {
    /// The severity.
    pub severity: Severity,
    /// The threshold as a `PromQL` number; empty where the alert has none.
    pub threshold: String,
    /// The threshold with its unit, for people.
    pub shown: String,
    /// How long the condition has to hold; `0s` for at once.
    pub hold: Duration,
}

pub fn resolve(found: &mut Findings, spec: &RoseyMonitorSpec) -> (Vec<ResolvedAlert>, Vec<Skipped>) {
    if let Some(interval) = &spec.alerts.interval {
        found.positive("spec.alerts.interval", interval);
    }
    check_overrides(found, spec);

    let (mut alerts, mut skipped) = (Vec::new(), Vec::new());
    for alert in catalogue::alerts().filter(|alert| spec.alerts.packs.contains(&alert.pack)) {
        let asked = spec
            .alerts
            .overrides
            .iter()
            .enumerate()
            .find(|(_, o)| o.alert == alert.name);
        if let Some(reason) = reason_to_skip(alert, asked.map(|(_, o)| o), spec) {
            skipped.push(Skipped {
                alert: alert.name.into(),
                reason,
            });
            continue;
        }
        let levels = match asked {
            Some((n, asked)) if !asked.levels.is_empty() => overridden(found, n, asked, alert),
            _ => alert
                .levels
                .iter()
                .filter_map(|level| from_catalogue(found, alert.unit, level))
                .collect(),
        };
        alerts.push(ResolvedAlert { alert, levels });
    }
    (alerts, skipped)
}

fn check_overrides(found: &mut Findings, spec: &RoseyMonitorSpec) {
    for (n, asked) in spec.alerts.overrides.iter().enumerate() {
        let field = format!("spec.alerts.overrides[{n}]");
        if spec.alerts.overrides[..n]
            .iter()
            .any(|other| other.alert == asked.alert)
        {
            found.problem(
                format!("{field}.alert"),
                format!("{} stands in the list already", asked.alert),
            );
        }
        if asked.enabled == Some(false) && !asked.levels.is_empty() {
            found.problem(
                &field,
                format!(
                    "alert {} has enabled: false and levels; remove one of them",
                    asked.alert
                ),
            );
        }
        match catalogue::alerts().find(|alert| alert.name == asked.alert) {
            None => found.problem(format!("{field}.alert"), unknown(&asked.alert)),
            Some(alert) if !spec.alerts.packs.contains(&alert.pack) => found.warn(format!(
                "{field}: {} is of pack {:?}, which spec.alerts.packs leaves out; the override has no effect",
                alert.name, alert.pack
            )),
            Some(_) => {}
        }
    }
}

/// What to say of an alert that the catalogue does not have.
pub fn unknown(name: &str) -> String {
    let known: Vec<_> = catalogue::alerts().map(|alert| alert.name).collect();
    format!("{name:?} is no alert of the catalogue; it has {}", known.join(", "))
}

fn reason_to_skip(alert: &Alert, asked: Option<&Override>, spec: &RoseyMonitorSpec) -> Option<String> {
    let enabled = asked.and_then(|o| o.enabled);
    let missing = !alert.needs.is_empty() && !alert.needs.iter().any(|source| source.is_read(spec));
    let production = matches!(spec.environment.as_str(), "prod" | "production");
    if enabled == Some(false) {
        Some("switched off by spec.alerts.overrides".into())
    } else if missing {
        let fields: Vec<_> = alert.needs.iter().map(|source| source.field()).collect();
        Some(match fields[..] {
            [field] => format!("{field} is not set"),
            _ => format!("none of {} is set", fields.join(", ")),
        })
    } else if alert.production_only && !production && enabled != Some(true) {
        Some("environment is not prod".into())
    } else {
        None
    }
}

fn overridden(found: &mut Findings, n: usize, asked: &Override, alert: &Alert) -> Vec<ResolvedLevel> {
    let mut levels = Vec::new();
    for (m, level) in asked.levels.iter().enumerate() {
        let field = format!("spec.alerts.overrides[{n}].levels[{m}]");
        if asked.levels[..m].iter().any(|other| other.severity == level.severity) {
            found.problem(
                format!("{field}.severity"),
                format!("{} stands in the list already", level.severity.as_str()),
            );
        }
        levels.extend(resolve_level(found, &field, level, alert));
    }
    levels
}

fn resolve_level(found: &mut Findings, field: &str, asked: &AskedLevel, alert: &Alert) -> Option<ResolvedLevel> {
    let same = alert.levels.iter().find(|level| level.severity == asked.severity);
    let default = same.or(alert.levels.first())?;
    let hold = asked.hold.clone().unwrap_or_else(|| hold(default));
    found.duration(&format!("{field}.for"), &hold)?;
    let Some(threshold) = &asked.threshold else {
        return from_catalogue(found, alert.unit, default).map(|level| ResolvedLevel {
            severity: asked.severity,
            hold,
            ..level
        });
    };
    match alert.unit.number(threshold) {
        Ok(number) => Some(ResolvedLevel {
            severity: asked.severity,
            shown: alert.unit.described_threshold(&threshold.to_string(), &number),
            threshold: number,
            hold,
        }),
        Err(refusal) => {
            found.problem(format!("{field}.threshold"), refusal);
            None
        }
    }
}

fn from_catalogue(found: &mut Findings, unit: Unit, level: &CatalogueLevel) -> Option<ResolvedLevel> {
    let shown = level.threshold.to_owned();
    let threshold = if shown.is_empty() {
        Ok(String::new())
    } else {
        unit.number(&Threshold::Text(shown.clone()))
    };
    match threshold {
        Ok(threshold) => Some(ResolvedLevel {
            severity: level.severity,
            shown: unit.described_threshold(&shown, &threshold),
            threshold,
            hold: hold(level),
        }),
        Err(refusal) => {
            found.problem("catalogue", refusal);
            None
        }
    }
}

fn hold(level: &CatalogueLevel) -> Duration {
    Duration::from(if level.hold.is_empty() { "0s" } else { level.hold })
}
