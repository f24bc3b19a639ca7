//! `board.toml`: what the hardware has that the box uses, one folder per board. Installed below
//! `/usr/share/edgerec/board`.

use std::path::{Path, PathBuf};

use crate::config::section::{Reading, Section};
use crate::config::{CONFIG_BYTES_MAX, ConfigFaults, parse_document, read_text};
use crate::domain::faults::Faults;
use crate::platform::flash::Flash;

/// Where the boards' folders are.
const BOARDS: &str = "/usr/share/edgerec/board";
/// Most thermal zones that are read.
const ZONES_MAX: usize = 16;
/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// What a board has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hardware {
    /// For people.
    pub name: String,
    /// Where the data partition is mounted; the ring lies in it.
    pub data_mount: PathBuf,
    /// The hardware watchdog, which the service manager feeds; `None` where there is none.
    pub watchdog: Option<PathBuf>,
    /// The LED that tells how the box is: its folder in `/sys/class/leds`.
    pub status_led: Option<PathBuf>,
    /// The clock that runs without power; `None`: times are not known until the network tells them.
    pub rtc: Option<PathBuf>,
    /// Thermal zones by their type.
    pub thermal_zones: Vec<String>,
    /// What says that power is about to go, in words; `None` where nothing does.
    pub power_fail: Option<String>,
}

impl Hardware {
    /// Reads a board: by the name of its folder, or by the path of one where there is a `/` in it.
    ///
    /// # Errors
    /// There is no such board, or everything that is wrong with its file.
    pub fn load(flash: &dyn Flash, board: &str) -> Result<Hardware, ConfigFaults> {
        let folder =
            if board.contains('/') { PathBuf::from(board) } else { Path::new(BOARDS).join(board) };
        let path = folder.join("board.toml");
        let parsed = read_text(flash, &path, CONFIG_BYTES_MAX)
            .map_err(|error| {
                let mut faults = Faults::new();
                faults.add("", format!("there is no board of this name: {error}"));
                faults
            })
            .and_then(|text| Hardware::parse(&text, &folder, flash));
        parsed.map_err(|faults| ConfigFaults { path, faults })
    }

    fn parse(text: &str, folder: &Path, flash: &dyn Flash) -> Result<Hardware, Faults> {
        parse_document(text, Reading::new(text, folder, flash), Hardware::read)
    }

    fn read(mut file: Section<'_>, reading: &mut Reading<'_>) -> Hardware {
        let name = file.parsed("name", reading, short).unwrap_or_else(|| {
            file.fault("name", "is needed", reading);
            String::new()
        });
        let mut section = |name: &str, reading: &mut Reading<'_>| {
            file.table(name, reading).unwrap_or_else(|| Section::absent(name))
        };
        let mut data = section("data", reading);
        let data_mount = data.path("mount", reading).unwrap_or_else(|| "/data".into());
        data.finish(reading);
        let mut watchdog = section("watchdog", reading);
        let watchdog_device = watchdog.path("device", reading);
        watchdog.finish(reading);
        let mut leds = section("leds", reading);
        let status_led = leds.path("status", reading);
        leds.finish(reading);
        let mut clock = section("clock", reading);
        let rtc = clock.path("rtc", reading);
        clock.finish(reading);
        let mut thermal = section("thermal", reading);
        let thermal_zones = thermal.list("zones", ZONES_MAX, reading, zone_type);
        thermal.finish(reading);
        let mut power = section("power_fail", reading);
        let power_fail = power.parsed("by", reading, short);
        power.finish(reading);
        file.finish(reading);
        Hardware {
            name,
            data_mount,
            watchdog: watchdog_device,
            status_led,
            rtc,
            thermal_zones,
            power_fail,
        }
    }
}

fn short(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err(format!("is not 1 to {NAME_BYTES_MAX} bytes long"));
    }
    Ok(text.to_owned())
}

/// A thermal zone's type; it becomes a label of a metric.
fn zone_type(text: &str) -> Result<String, String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    if !text.bytes().all(plain) {
        return Err("is not letters, digits, `.`, `_` and `-`".to_owned());
    }
    short(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::flash::SystemFlash;

    #[test]
    fn every_fault_of_a_board_is_told_with_its_place() {
        let parse = |text: &str| Hardware::parse(text, Path::new("/b"), &SystemFlash);
        let whole =
            parse("name = \"x\"\n[leds]\nstatus = \"/sys/class/leds/ACT\"\n").expect("fine");
        assert_eq!(whole.status_led, Some("/sys/class/leds/ACT".into()));
        assert_eq!((whole.data_mount.to_str(), whole.rtc), (Some("/data"), None));
        let faults = parse("[leds]\nstatus = 1\n[fan]\n").expect_err("refused").to_string();
        for told in ["name: is needed", "leds.status", "fan"] {
            assert!(faults.contains(told), "{faults}");
        }
        let none = Hardware::load(&SystemFlash, "no-such-board").expect_err("refused").to_string();
        assert!(none.contains("no-such-board/board.toml"), "{none}");
    }
}
