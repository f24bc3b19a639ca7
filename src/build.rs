//! Build script: the commit that a release is built from goes into `--version`.
//!
//! `EDGEREC_COMMIT` names it where there is no repository, as in a recipe that builds from an archive.
//! Other builds than releases say none, so that a commit alone does not build everything anew.

use std::env;
use std::process::Command;

/// Letters of a commit that are shown.
const SHOWN: usize = 12;

fn main() {
    println!("cargo::rerun-if-env-changed=EDGEREC_COMMIT");
    let given = env::var("EDGEREC_COMMIT").ok().filter(|commit| !commit.is_empty());
    let released = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| released.then(of_the_repository).flatten());
    let version = env::var("CARGO_PKG_VERSION").expect("cargo says it");
    let shown = commit.map_or(version.clone(), |commit| {
        let commit: String = commit.chars().take(SHOWN).collect();
        format!("{version} ({commit})")
    });
    println!("cargo::rustc-env=EDGEREC_VERSION={shown}");
}

/// The commit that is checked out.
fn of_the_repository() -> Option<String> {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| text.trim().to_owned())
    };
    // Each commit writes there, on whatever branch.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    git(&["rev-parse", "HEAD"])
}
