//! What a board has, as the kernel shows it: LEDs and temperatures.
//!
//! # Specification
//! Linux `Documentation/leds/leds-class.rst`, `Documentation/driver-api/thermal/sysfs-api.rst`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Where the kernel shows thermal zones.
const ZONES: &str = "/sys/class/thermal";

/// An LED by its folder.
#[derive(Debug)]
pub struct Led(PathBuf);

impl Led {
    /// Takes an LED over from the kernel's own triggers.
    ///
    /// # Errors
    /// It is not there, or this process may not switch it.
    pub fn take(folder: &Path) -> io::Result<Led> {
        fs::write(folder.join("trigger"), "none")?;
        Ok(Led(folder.to_owned()))
    }

    /// Switches it.
    ///
    /// # Errors
    /// As [`take`](Self::take).
    pub fn set(&self, lit: bool) -> io::Result<()> {
        fs::write(self.0.join("brightness"), if lit { "1" } else { "0" })
    }
}

/// Temperatures of the zones of these types, in degrees Celsius; zones that are not there are left
/// out.
#[must_use]
pub fn temperatures(types: &[String]) -> Vec<(String, f64)> {
    temperatures_in(Path::new(ZONES), types)
}

fn temperatures_in(zones: &Path, types: &[String]) -> Vec<(String, f64)> {
    let Ok(entries) = fs::read_dir(zones) else { return Vec::new() };
    let mut found: Vec<(String, f64)> = entries
        .filter_map(|entry| {
            let zone = entry.ok()?.path();
            let kind = fs::read_to_string(zone.join("type")).ok()?.trim().to_owned();
            let millis: i32 = fs::read_to_string(zone.join("temp")).ok()?.trim().parse().ok()?;
            types.contains(&kind).then(|| (kind, f64::from(millis) / 1_000.0))
        })
        .collect();
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found.dedup_by(|one, other| one.0 == other.0);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zones_are_found_by_their_type_whatever_their_number() {
        let dir = tempfile::tempdir().expect("scratch");
        let zones = [("thermal_zone3", "cpu-thermal", "48312\n"), ("thermal_zone0", "gpu", "1\n")];
        for (name, kind, temp) in zones {
            let zone = dir.path().join(name);
            fs::create_dir(&zone).expect("made");
            fs::write(zone.join("type"), format!("{kind}\n")).expect("written");
            fs::write(zone.join("temp"), temp).expect("written");
        }
        // One whose sensor does not answer, and what is no zone.
        fs::create_dir(dir.path().join("cooling_device0")).expect("made");
        let asked = ["cpu-thermal".to_owned(), "npu-thermal".to_owned()];
        assert_eq!(temperatures_in(dir.path(), &asked), [("cpu-thermal".to_owned(), 48.312)]);
        assert!(temperatures_in(&dir.path().join("none"), &asked).is_empty());
    }
}
