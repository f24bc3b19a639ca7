//! `edgerec explain`: which rule decides about a stream, and why.

use std::io::Write;

use crate::api;
use crate::api::explain::Presence;
use crate::api::report::ExplainReport;
use crate::cli::link::{self, RunningBox};
use crate::cli::outcome::{Failure, print, print_json, printable};
use crate::config::Config;
use crate::domain::matching::{Layer, RuleTable};
use crate::domain::rule_set::RuleSet;
use crate::domain::service::layers::SentLayer;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::UnixMillis;
use crate::platform::flash::SystemFlash;

/// Asks the running box, else looks into its ring and its file of rules, or what its fleet has sent.
///
/// # Errors
/// Nothing can be said: neither the box nor its ring can be reached, or the rules cannot be read.
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
    if let Some(keeps_s) = report.keeps_s {
        let hours = keeps_s / 3_600;
        print(out, format_args!("at this rate the ring keeps {hours} h of it"))?;
    }
    print(out, printable(&report.reason))
}

/// The rules of the file or the fleet are laid under what the API has made; the ring is not written.
fn explain_offline(
    config: &Config,
    key: &StreamKey,
    at: Option<UnixMillis>,
) -> Result<ExplainReport, Failure> {
    let rules = rules(config)?;
    let ring = match (link::open_ring(config), &rules) {
        (Ok(ring), _) => ring,
        (Err(_), Some(rules)) if at.is_none() => {
            let table = RuleTable::new([(Layer::Fleet, rules)]);
            let mut report = ExplainReport::new(key, (&table.resolve(key)).into());
            report.reason.push_str("; there is no ring with what the API has made");
            return Ok(report);
        }
        (Err(failure), _) => return Err(failure),
    };
    let (asked, allow_local) = (key.clone(), config.rules.allow_local);
    let us = config.addressee(&ring.ring().identity.box_id);
    let explained = ring.ring().catalog.call_blocking(move |state| {
        state
            .change_service(|service, changes| {
                if !allow_local {
                    service.layers.close_local();
                }
                if let Some(rules) = rules {
                    service.layers.set(SentLayer::Fleet, rules, UnixMillis(0), changes);
                }
                if let Some(us) = us {
                    service.adopt_documents(&us, UnixMillis(0), changes);
                }
                Ok(())
            })
            // Nothing is refused here.
            .map(drop)?;
        api::explain::explain(state, Presence::Unknown, &asked, at)
    });
    explained.map_err(|error| Failure::of(&error))
}

fn rules(config: &Config) -> Result<Option<RuleSet>, Failure> {
    let Some(file) = &config.rules.file else { return Ok(None) };
    let document =
        file.load(&SystemFlash).map_err(|faults| Failure::Configuration(faults.to_string()))?;
    Ok(document.map(|document| document.rules))
}
