//! `edgerec factory-reset`: takes a box back to what left the factory's mould: media, queue, tasks
//! and keys are wiped, and what `provision` wrote is removed.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::cli::outcome::{Failure, bytes_for_people, print, print_json};
use crate::cli::provision::{API_KEY, CA, CERT, KEY, MADE_HERE};
use crate::config::{Config, folder_of};
use crate::platform::flash::{Flash, SystemFlash};
use crate::ring::RingError;
use crate::ring::wipe::{Wiped, wipe};

/// The rules of a box without a fleet: addresses and passwords of cameras are in them.
const RULES: &str = "rules.json";

/// What is to be reset.
#[derive(Debug, Args)]
pub struct FactoryReset {
    /// Yes, everything that was recorded is to be gone.
    #[arg(long, required = true)]
    yes: bool,
    /// Keep the configuration and the keys that `provision` made.
    #[arg(long)]
    keep_identity: bool,
    /// Remove files without writing zeros over them first: seconds, but media can be read back.
    #[arg(long)]
    quick: bool,
    /// Report as JSON.
    #[arg(long)]
    json: bool,
}

/// Wipes the ring, then the identity. One that was cut off is finished by the next.
///
/// # Errors
/// The box runs, or something cannot be removed; the next reset goes on.
pub fn reset(path: &Path, wanted: &FactoryReset, out: &mut dyn Write) -> Result<(), Failure> {
    let cut_off = !SystemFlash.exists(path) && SystemFlash.exists(&set_aside(path));
    let wiped = if cut_off { Wiped::default() } else { wipe_ring(path, !wanted.quick)? };
    let removed = if wanted.keep_identity { Vec::new() } else { remove_identity(path)? };
    if wanted.json {
        let removed: Vec<_> = removed.iter().map(|file| file.to_string_lossy()).collect();
        let (files, bytes) = (wiped.files, wiped.bytes);
        return print_json(
            out,
            &json!({"wiped_files": files, "overwritten_bytes": bytes, "removed": removed}),
        );
    }
    let bytes = bytes_for_people(wiped.bytes);
    print(out, format_args!("wiped {} files of the ring, {bytes} written over", wiped.files))?;
    for file in removed {
        print(out, format_args!("removed {}", file.display()))?;
    }
    Ok(())
}

fn wipe_ring(path: &Path, overwrite: bool) -> Result<Wiped, Failure> {
    let config = Config::load(path).map_err(|faults| Failure::Configuration(faults.to_string()))?;
    match wipe(&SystemFlash, &config.ring.path, overwrite) {
        // A reset that was cut off behind the ring.
        Err(RingError::Missing { .. }) => Ok(Wiped::default()),
        wiped => wiped.map_err(|error| Failure::of(&error)),
    }
}

/// Removes what `provision` wrote, and the rules beside it: the configuration is set aside first, since
/// without its secrets it cannot be read, and goes last. A configuration that somebody else wrote stays.
fn remove_identity(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let flash = SystemFlash;
    let failed = |path: &Path, error: &std::io::Error| {
        Failure::failed(format!("{} cannot be removed: {error}", path.display()))
    };
    let folder = folder_of(path);
    let aside = set_aside(path);
    if flash.exists(path) {
        let text = std::fs::read_to_string(path).map_err(|error| failed(path, &error))?;
        if text.lines().next() != Some(MADE_HERE) {
            return Ok(Vec::new());
        }
        flash
            .rename(path, &aside)
            .and_then(|()| flash.sync_dir(&folder))
            .map_err(|error| failed(path, &error))?;
    }
    let mut removed = vec![path.to_owned()];
    for file in [API_KEY, CA, CERT, KEY, RULES].map(|name| folder.join(name)) {
        if flash.exists(&file) {
            flash.remove_file(&file).map_err(|error| failed(&file, &error))?;
            removed.push(file);
        }
    }
    flash
        .remove_file(&aside)
        .and_then(|()| flash.sync_dir(&folder))
        .map_err(|error| failed(&aside, &error))?;
    Ok(removed)
}

/// Where the configuration lies while the identity is removed.
fn set_aside(path: &Path) -> PathBuf {
    path.with_extension("toml.wiped")
}
