//! `edgerec explain`: which rule decides about a stream, and why.

use std::io::Write;

use crate::api::report::ExplainReport;
use crate::cli::link::{self, RunningBox};
use crate::cli::outcome::{Failure, print, print_json, printable};
use crate::config::Config;
use crate::domain::matching::{Layer, RuleTable};
use crate::domain::stream_key::StreamKey;
use crate::domain::time::UnixMillis;
use crate::platform::flash::SystemFlash;

/// Asks the running box, else the ring for the past and the file of rules for now.
///
/// # Errors
/// Nothing can be said: the rules cannot be read, or are not on this machine.
pub fn explain(
    config: &Config,
    key: &StreamKey,
    at: Option<UnixMillis>,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let report = match RunningBox::reach(&config.ring.path)? {
        Some(running) => running.explain(key, at)?,
        None => explain_offline(config, key, at)?,
    };
    if json {
        return print_json(out, &report);
    }
    print(out, format_args!("{}: {}", report.stream, report.decision))?;
    if report.stale {
        print(out, "its session still runs under older rules")?;
    }
    for task in &report.tasks {
        print(out, format_args!("recorded by task {}", printable(task)))?;
    }
    print(out, printable(&report.reason))
}

fn explain_offline(
    config: &Config,
    key: &StreamKey,
    at: Option<UnixMillis>,
) -> Result<ExplainReport, Failure> {
    if let Some(at) = at {
        let ring = link::open_ring(config)?;
        let asked = key.clone();
        let recordings =
            ring.ring().catalog.call_blocking(move |state| state.recordings_at(&asked, at));
        if let Some(recordings) = recordings.map_err(|error| Failure::of(&error))? {
            return Ok(ExplainReport::of_recordings(key, at, &recordings));
        }
    }
    let report = ExplainReport::of_rules(key, &rules(config)?.resolve(key));
    Ok(if at.is_some() { report.instead_of_then() } else { report })
}

fn rules(config: &Config) -> Result<RuleTable, Failure> {
    let Some(file) = &config.rules.file else {
        let what = "the box does not run, and its rules come from the fleet";
        return Err(Failure::failed(what));
    };
    let document =
        file.load(&SystemFlash).map_err(|faults| Failure::Configuration(faults.to_string()))?;
    let rules = document.iter().map(|document| (Layer::Fleet, &document.rules));
    Ok(RuleTable::new(rules))
}
