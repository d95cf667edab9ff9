//! The types of prometheus-operator's resources, generated from its CRDs by `tools/monitoring` and checked in.

#![allow(
    missing_docs,
    clippy::pedantic,
    clippy::all,
    rustdoc::all,
    reason = "generated; its shape is kopium's and its text is prometheus-operator's"
)]

pub mod alertmanager_config;
pub mod pod_monitor;
pub mod prometheus_rule;
