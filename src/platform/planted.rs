//! Faults that a build with the feature `planted-faults` can be asked for by its environment, so
//! that a proof can be seen to go red. In every other build nothing is planted.

use std::env;
use std::path::Path;

/// Whether the fault of this variable is asked for.
#[must_use]
pub fn is_planted(variable: &str) -> bool {
    cfg!(feature = "planted-faults") && env::var_os(variable).is_some()
}

/// The number of this variable.
#[must_use]
pub fn number(variable: &str) -> Option<u64> {
    let given = || env::var(variable).ok()?.parse().ok();
    if cfg!(feature = "planted-faults") { given() } else { None }
}

/// By how many milliseconds the wall clock is wrong: `EDGEREC_PLANT_CLOCK` is a file that says it.
#[must_use]
pub fn clock_off_ms() -> i64 {
    let given = || {
        let path = env::var_os("EDGEREC_PLANT_CLOCK")?;
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    if cfg!(feature = "planted-faults") { given().unwrap_or(0) } else { 0 }
}

/// Whether a part of the box is to hang from now on: `EDGEREC_PLANT_HANG` is a folder in which a
/// file has the name of the part.
#[must_use]
pub fn hangs(part: &str) -> bool {
    cfg!(feature = "planted-faults")
        && env::var_os("EDGEREC_PLANT_HANG").is_some_and(|dir| Path::new(&dir).join(part).exists())
}
