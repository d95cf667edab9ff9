//! The operator: what runs in the cluster and turns monitors into objects.

pub mod injector;
