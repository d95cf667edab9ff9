//! What people hear of a bot, and what they are spared: the product on a real control plane with a real Prometheus stack.
//!
//! Each scenario has a lab of its own, at most two at a time. Times are shortened by fields of the resource only.
#![allow(missing_docs, reason = "a test has a name")]

mod bot_down;
mod by_hand;
mod channels;
mod encrypted;
mod hostile_text;
mod notifications;
mod render;
mod scene;
mod selected;
mod series;
mod strangers;
