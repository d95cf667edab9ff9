//! The operator on a real API server, under a user with exactly the rights of its roles.
//!
//! Most labs have no Prometheus stack: the definitions of its kinds are enough to be reconciled against.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test says what went wrong by panicking"
)]
#![allow(missing_docs, reason = "a test has a name")]

mod admission;
mod drift;
mod foreign;
mod gitops;
mod injection;
mod installed;
mod late_definitions;
mod lifecycle;
mod namespaces;
mod pods;
mod quiet;
mod refused_pods;
mod repairs;
mod replicas;
mod rights;
mod schema;
mod stage;
mod updates;
