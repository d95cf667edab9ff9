//! What is known about bots, as data: every series and every alert. Exporter, rules, dashboards and docs read it here.

pub mod metrics;
