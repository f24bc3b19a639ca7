//! The process shuts itself in: paths and TCP ports by Landlock, system calls by seccomp. What the
//! kernel cannot do is left out, and the level reached is told; without any of it the box still
//! runs, in the sandbox of its unit (`systemd/edgerec.service`).
//!
//! Both hold for the calling thread and for those that it starts later, so the sandbox is entered
//! before the first thread is started. There is no way out of it.
//!
//! # Specification
//! `landlock(7)`, `seccomp(2)`.

mod calls;
mod paths;

use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::platform::planted::is_planted;

/// Makes a call outside of the list.
const PLANTED_CALL: &str = "EDGEREC_PLANT_UNLISTED_CALL";

/// What this process has reached.
static REACHED: OnceLock<Level> = OnceLock::new();

/// What is left to the process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Confinement {
    /// Files and folders (with all below them) that may be read.
    pub reads: Vec<PathBuf>,
    /// Folders in which everything may be done but starting programs.
    pub writes: Vec<PathBuf>,
    /// TCP ports that may be bound; 0 is any that is free.
    pub listens: Vec<u16>,
}

/// How far a kind of confinement is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Nothing.
    None = 0,
    /// What this kernel knows of it.
    Part = 1,
    /// All that was asked for.
    Whole = 2,
}

/// What was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Paths and ports.
    pub paths: Reach,
    /// System calls.
    pub calls: Reach,
    /// Why something is not in force, as the system says it.
    pub faults: Vec<String>,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reach::Whole => "whole",
            Reach::Part => "part",
            Reach::None => "none",
        })
    }
}

/// Enters the sandbox, as far as the kernel has one; once a process. A path that is not there is left
/// out.
#[must_use]
pub fn enter(confinement: &Confinement) -> Level {
    let mut faults = Vec::new();
    let mut reached = |entered: Result<Reach, String>| {
        entered.unwrap_or_else(|fault| {
            faults.push(fault);
            Reach::None
        })
    };
    // In this order: the filter has no calls of Landlock.
    let paths = reached(paths::confine(confinement));
    let calls = reached(calls::filter());
    if is_planted(PLANTED_CALL) {
        let called = nix::unistd::setsid().map_err(|errno| format!("{errno:?}"));
        faults.push(format!("the planted call: {}", called.map_or_else(|e| e, |_| "done".into())));
    }
    let level = Level { paths, calls, faults };
    REACHED.get_or_init(|| level).clone()
}

/// What this process has reached; `None`: it never entered the sandbox.
#[must_use]
pub fn reached() -> Option<&'static Level> {
    REACHED.get()
}
