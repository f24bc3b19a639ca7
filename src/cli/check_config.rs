//! `edgerec check-config`: the configuration and its file of rules, with everything that is wrong
//! with both, and what is odd though legal.

use std::io::Write;
use std::path::Path;

use serde_json::json;

use crate::cli::outcome::{Failure, print};
use crate::config::{Config, ConfigFaults, RingConfig};
use crate::domain::faults::Faults;
use crate::domain::matching::{Decision, Layer, RuleTable};
use crate::domain::rule_set::RuleSet;
use crate::fleet::check_certificates;
use crate::platform::flash::Flash;
use crate::ring::identity::RingIdentity;

/// What the check found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Files that cannot be used.
    pub faulty: Vec<ConfigFaults>,
    /// What is legal, but probably not meant.
    pub odd: Vec<String>,
    /// What the configuration amounts to, if it can be used.
    pub summary: Vec<String>,
}

/// Checks the configuration at `path` and the rules that it names.
#[must_use]
pub fn check(flash: &dyn Flash, path: &Path) -> Findings {
    let mut findings = Findings::default();
    let config = match Config::load_from(flash, path) {
        Ok(config) => config,
        Err(faults) => {
            findings.faulty.push(faults);
            return findings;
        }
    };
    let RingConfig { path: ring, capacity_bytes, slot_bytes, .. } = &config.ring;
    match RingIdentity::plan(ring, *capacity_bytes, *slot_bytes) {
        Ok(plan) => findings.summary.push(summary_of_ring(ring, &plan)),
        Err(_) => {
            let mut faults = Faults::new();
            faults.add("ring.capacity", "leaves no room for slots beside the catalog");
            findings.faulty.push(ConfigFaults { path: path.to_owned(), faults });
        }
    }
    if let Some(mqtt) = &config.mqtt {
        let identity = mqtt.identity.as_ref().map(|identity| (&identity.cert, &identity.key));
        if let Err(problem) = check_certificates(mqtt.ca.as_ref(), identity) {
            let mut faults = Faults::new();
            faults.add("mqtt", problem.to_string());
            findings.faulty.push(ConfigFaults { path: path.to_owned(), faults });
        }
    }
    let Some(file) = &config.rules.file else {
        findings.summary.push("rules come from the fleet".to_owned());
        return findings;
    };
    match file.load(flash) {
        Err(faults) => findings.faulty.push(faults),
        Ok(None) => findings.odd.push(format!(
            "{} is not there, so nothing is recorded until rules are made",
            file.path.display()
        )),
        Ok(Some(document)) => {
            findings.summary.push(summary_of_rules(&document.rules));
            findings.odd.extend(odd_rules(&document.rules));
        }
    }
    findings
}

/// Prints the findings: faults as errors, the rest as the report.
///
/// # Errors
/// The box cannot run with it.
pub fn report(findings: &Findings, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let lines = if json { findings.json_lines() } else { findings.lines() };
    lines.iter().try_for_each(|line| print(out, line))?;
    if findings.usable() {
        return Ok(());
    }
    if json {
        return Err(Failure::Said(Failure::CONFIGURATION));
    }
    let faulty: Vec<String> = findings.faulty.iter().map(ToString::to_string).collect();
    Err(Failure::Configuration(faulty.join("\n")))
}

impl Findings {
    /// Whether the box can run with it.
    #[must_use]
    pub fn usable(&self) -> bool {
        self.faulty.is_empty()
    }

    /// Lines for a person, beside the faults.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let odd = self.odd.iter().map(|odd| format!("note: {odd}"));
        odd.chain(self.summary.iter().cloned()).collect()
    }

    /// One JSON object a line: first the faults, then the verdict.
    #[must_use]
    pub fn json_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for file in &self.faulty {
            for fault in file.faults.iter() {
                let path = file.path.to_string_lossy();
                let line = json!({"file": path, "place": fault.place, "fault": fault.what});
                lines.push(line.to_string());
            }
        }
        let verdict = json!({"ok": self.usable(), "notes": self.odd, "summary": self.summary});
        lines.push(verdict.to_string());
        lines
    }
}

fn summary_of_ring(path: &Path, plan: &RingIdentity) -> String {
    let RingIdentity { capacity_bytes, slots, slot_bytes, .. } = plan;
    format!("ring {}: {capacity_bytes} bytes, {slots} slots of {slot_bytes}", path.display())
}

fn summary_of_rules(rules: &RuleSet) -> String {
    format!(
        "rules revision {}: {} templates, {} rules, {} sources, {} callbacks",
        rules.revision,
        rules.templates.len(),
        rules.rules.len(),
        rules.sources.len(),
        rules.callbacks.len()
    )
}

/// Templates that nothing uses, and cameras that are pulled and not recorded.
fn odd_rules(rules: &RuleSet) -> Vec<String> {
    let used = |name: &str| rules.rules.iter().any(|rule| rule.template == name);
    let unused = rules
        .templates
        .iter()
        .filter(|template| !used(&template.name))
        .map(|template| format!("no rule uses the template {}", template.name));
    let table = RuleTable::new([(Layer::Fleet, rules)]);
    let unrecorded = rules
        .sources
        .iter()
        .filter(|source| table.resolve(&source.key) == Decision::Unmatched)
        .map(|source| format!("no rule matches the source {}: it is not recorded", source.key));
    unused.chain(unrecorded).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::platform::flash::SystemFlash;

    fn checked(config: &str, rules: Option<&str>) -> Findings {
        let dir = tempfile::tempdir().expect("scratch");
        let path = dir.path().join("edgerec.toml");
        fs::write(&path, config).expect("written");
        if let Some(rules) = rules {
            fs::write(dir.path().join("rules.json"), rules).expect("written");
        }
        check(&SystemFlash, &path)
    }

    #[test]
    fn faults_of_both_files_are_told_in_their_places() {
        let broken = checked("[ring]\nslot = 1\n[nope]\n", None);
        assert!(!broken.usable());
        assert_eq!(broken.json_lines().len(), 3);
        let small = checked("[ring]\ncapacity = \"8MiB\"\nslot = \"1MiB\"\n", None);
        assert!(small.json_lines()[0].contains(r#""place":"ring.capacity""#));
        let rules = checked("", Some(r#"{"revision": 0}"#));
        assert!(!rules.usable());
        let line = &rules.json_lines()[0];
        assert!(line.contains(r#""place":"revision""#), "{line}");
        assert!(rules.faulty[0].to_string().contains("rules.json cannot be used"));
    }

    #[test]
    fn what_is_odd_is_noted_and_does_not_fail() {
        let missing = checked("", None);
        assert!(missing.usable());
        assert_eq!(missing.odd.len(), 1);
        let odd = checked(
            "",
            Some(
                r#"{"revision": 1, "templates": [{"TemplateName": "idle"}],
                "sources": [{"DomainName": "cams", "AppName": "live", "StreamName": "gate",
                             "Url": "rtsp://admin:canary@10.0.0.8/"}]}"#,
            ),
        );
        assert!(odd.usable());
        let lines = odd.lines().join("\n");
        assert!(lines.contains("note: no rule uses the template idle"), "{lines}");
        assert!(lines.contains("cams/live/gate: it is not recorded"), "{lines}");
        assert!(lines.contains("rules revision 1: 1 templates, 0 rules, 1 sources, 0 callbacks"));
        assert!(!lines.contains("canary"));
    }
}
