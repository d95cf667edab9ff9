//! What operator and command line both ask the API server.

pub mod client;
pub mod platform;
pub mod stack;
