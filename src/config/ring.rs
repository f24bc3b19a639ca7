//! `[ring]`: where media is kept, how much of it, and how often it is made durable.

use std::path::PathBuf;
use std::time::Duration;

use crate::config::quantity::{parse_duration, parse_size};
use crate::config::section::{Reading, Section};
use crate::domain::eviction::OnFull;
use crate::domain::limits::PAGE_BYTES;

/// Smallest slot, in bytes.
const SLOT_BYTES_MIN: u64 = 1 << 20;
/// Largest slot, in bytes: a fragment is found by its page number in 16 bits.
const SLOT_BYTES_MAX: u64 = 256 << 20;
/// Fewest slots of a ring.
const SLOTS_MIN: u64 = 8;
/// Most slots of a ring: their names have six digits.
const SLOTS_MAX: u64 = 1_000_000;
/// Shortest time between two syncs.
const SYNC_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Longest time between two syncs.
const SYNC_INTERVAL_MAX: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(86_400);
/// How long a card is to last if nothing is said: three years.
const WARN_WEAR: Duration = DAY.saturating_mul(1_095);
/// Shortest time that can be asked of a card.
const WARN_WEAR_MIN: Duration = DAY;
/// Longest time that can be asked of a card.
const WARN_WEAR_MAX: Duration = DAY.saturating_mul(36_500);
/// Shortest HLS clip.
const HLS_CLIP_MIN: Duration = Duration::from_secs(1);
/// Longest HLS clip.
const HLS_CLIP_MAX: Duration = Duration::from_secs(24 * 3_600);

const _: () = assert!(SLOT_BYTES_MIN.is_multiple_of(PAGE_BYTES));

/// The ring as used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingConfig {
    /// Its directory.
    pub path: PathBuf,
    /// The ring is on the disk that is mounted here, or nowhere; `None`: on whatever lies at its path.
    pub mount: Option<PathBuf>,
    /// What its disk is good for, as far as anybody told.
    pub endurance: Option<Endurance>,
    /// Everything in it stays below this, in bytes; at least eight slots.
    pub capacity_bytes: u64,
    /// Size of a slot in bytes, a multiple of a page.
    pub slot_bytes: u64,
    /// Time between two syncs.
    pub sync_interval: Duration,
    /// Streams that no rule matches are kept in the ring.
    pub keep_all: bool,
    /// A missing ring is created.
    pub create: bool,
    /// What happens to undelivered media when the ring is full.
    pub on_full: OnFull,
    /// Longest HLS clip; `None` is the smaller of twelve hours and a quarter of the ring.
    pub hls_clip_max: Option<Duration>,
}

/// What a disk is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endurance {
    /// Bytes that can be written to it in all, by its data sheet (TBW).
    pub bytes: u64,
    /// Days that it is to last: it is warned of an end before that.
    pub warn_days: u64,
}

impl RingConfig {
    pub(super) fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Self {
        let path = section.path("path", reading).unwrap_or_else(|| "/data/edgerec".into());
        let mount = section.path("mount", reading);
        if mount.as_ref().is_some_and(|mount| !path.starts_with(mount)) {
            section.fault("mount", format!("is not above {}", path.display()), reading);
        }
        let before = reading.count();
        let capacity_bytes = section.parsed("capacity", reading, parse_size).unwrap_or(24 << 30);
        let slot_bytes = section
            .parsed("slot", reading, |text| {
                let bytes = parse_size(text)?;
                if !(SLOT_BYTES_MIN..=SLOT_BYTES_MAX).contains(&bytes) {
                    return Err("is outside 1MiB..=256MiB".to_owned());
                }
                if !bytes.is_multiple_of(PAGE_BYTES) {
                    return Err(format!("is not a multiple of {PAGE_BYTES} bytes"));
                }
                Ok(bytes)
            })
            .unwrap_or(16 << 20);
        let slots = capacity_bytes / slot_bytes;
        // With another fault in the sizes this one would be about a default.
        if reading.count() == before && !(SLOTS_MIN..=SLOTS_MAX).contains(&slots) {
            let what = format!("holds {slots} slots, {SLOTS_MIN}..={SLOTS_MAX} are allowed");
            section.fault("capacity", what, reading);
        }
        let sync_interval = section
            .parsed("sync_interval", reading, |text| {
                duration_within(text, SYNC_INTERVAL_MIN, SYNC_INTERVAL_MAX)
            })
            .unwrap_or(Duration::from_secs(1));
        let keep_all = section.flag("keep_all", reading).unwrap_or(false);
        let create = section.flag("create", reading).unwrap_or(false);
        let on_full = section.parsed("on_full", reading, str::parse).unwrap_or_default();
        let hls_clip_max = section.parsed("hls_clip_max", reading, |text| {
            duration_within(text, HLS_CLIP_MIN, HLS_CLIP_MAX)
        });
        let endurance = read_endurance(&mut section, reading);
        section.finish(reading);
        RingConfig {
            path,
            mount,
            endurance,
            capacity_bytes,
            slot_bytes,
            sync_interval,
            keep_all,
            create,
            on_full,
            hls_clip_max,
        }
    }
}

fn read_endurance(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Option<Endurance> {
    let bytes = section.parsed("endurance", reading, |text| match parse_size(text)? {
        0 => Err("is nothing".to_owned()),
        bytes => Ok(bytes),
    });
    if section.has("warn_wear") && bytes.is_none() {
        section.fault("warn_wear", "does nothing without endurance", reading);
    }
    let warn = section
        .parsed("warn_wear", reading, |text| duration_within(text, WARN_WEAR_MIN, WARN_WEAR_MAX));
    let warn_days = warn.unwrap_or(WARN_WEAR).as_secs() / DAY.as_secs();
    Some(Endurance { bytes: bytes?, warn_days })
}

fn duration_within(text: &str, min: Duration, max: Duration) -> Result<Duration, String> {
    let duration = parse_duration(text)?;
    if (min..=max).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!("is outside {min:?}..={max:?}"))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::platform::flash::SystemFlash;

    fn read(lines: &str) -> Result<RingConfig, String> {
        let text = format!("[ring]\npath = \"/data/edgerec\"\n{lines}");
        let config = Config::parse(&text, Path::new("/etc/edgerec"), &SystemFlash);
        config.map(|config| config.ring).map_err(|faults| faults.to_string())
    }

    #[test]
    fn a_disk_is_named_by_where_it_is_mounted_and_is_above_the_ring() {
        let mount = read("mount = \"/data\"\n").expect("good").mount;
        assert_eq!(mount.as_deref(), Some(Path::new("/data")));
        assert!(read("mount = \"/media/usb\"\n").expect_err("beside").contains("is not above"));
    }

    #[test]
    fn what_a_card_is_good_for_is_told_with_how_long_it_is_to_last() {
        let endurance = |lines| read(lines).expect("good").endurance;
        assert_eq!(endurance(""), None);
        let three_years = Endurance { bytes: 20_000_000_000_000, warn_days: 1_095 };
        assert_eq!(endurance("endurance = \"20TB\"\n"), Some(three_years));
        let short = endurance("endurance = \"20TB\"\nwarn_wear = \"30d\"\n");
        assert_eq!(short.map(|one| one.warn_days), Some(30));
        let alone = read("warn_wear = \"30d\"\n").expect_err("of nothing");
        assert!(alone.contains("does nothing without endurance"), "{alone}");
        assert!(read("endurance = \"0B\"\n").is_err());
    }
}
