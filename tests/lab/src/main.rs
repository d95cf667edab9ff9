//! `lab up`: a lab to play with.
fn main() {}
