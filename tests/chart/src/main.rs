//! Writes what is made of the chart: `chart readme` the table of its README, `chart manifests` the plain manifests in deploy/.

use std::process::ExitCode;

use chart::{manifests, readme};

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    let written = match asked.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["readme"] => readme::write(),
        ["manifests"] => manifests::write(),
        _ => {
            eprintln!("usage: chart readme | manifests");
            return ExitCode::from(2);
        }
    };
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("chart: {error:#}");
            ExitCode::FAILURE
        }
    }
}
