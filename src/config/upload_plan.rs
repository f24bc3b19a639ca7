//! The keys of `[upload]` that say when and in which order files go out.

use crate::config::quantity::{BitRate, parse_bit_rate, parse_size};
use crate::config::section::{Reading, Section};
use crate::domain::day_windows::DayWindow;
use crate::domain::limits::MULTIPART_BYTES_MIN;
use crate::domain::upload_order::{UploadKind, UploadOrder};

/// Most upload windows.
const WINDOWS_MAX: usize = 16;
/// Most names of links or templates.
const NAMES_MAX: usize = 64;
/// Longest such name, in bytes.
const NAME_BYTES_MAX: usize = 255;
/// The lowest cap: below it no part would arrive before its server gives it up.
const BANDWIDTH_MIN: BitRate = BitRate(64_000);
/// The smallest budget is so many times what may be on its way when it is used up: that may be cut
/// off, and is then sent in vain.
const DAILY_BUDGET_TIMES: u64 = 2;
/// Most files on their way at the same time.
const PARALLEL_MAX: u32 = 8;
/// Files on their way at the same time, if nothing is said.
const PARALLEL: u32 = 2;

/// When and in which order files go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadPlanConfig {
    /// Uploads together take no more than this.
    pub bandwidth: Option<BitRate>,
    /// Uploads run inside these stretches of local time only; empty is always.
    pub windows: Vec<DayWindow>,
    /// The order of the queue.
    pub order: UploadOrder,
    /// Files on their way at the same time, each with one part or object.
    pub parallel: usize,
    /// Bytes that may go out in a local day.
    pub daily_bytes: Option<u64>,
    /// Names of network interfaces that cost money.
    pub metered_links: Vec<String>,
    /// Only files of these templates go out over them.
    pub metered_templates: Vec<String>,
}

impl UploadPlanConfig {
    pub(super) fn read(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Self {
        let bandwidth = section.parsed("bandwidth", reading, |text| {
            let rate = parse_bit_rate(text)?;
            if rate < BANDWIDTH_MIN { Err("is less than 64kbit".to_owned()) } else { Ok(rate) }
        });
        let parallel = section.number("parallel", 1..=PARALLEL_MAX, reading).unwrap_or(PARALLEL);
        let daily_bytes =
            section.parsed("daily_budget", reading, |text| read_daily_budget(text, parallel));
        let metered_links = section.list("metered_links", NAMES_MAX, reading, name);
        if section.has("metered_templates") && metered_links.is_empty() {
            section.fault("metered_templates", "does nothing without metered_links", reading);
        }
        UploadPlanConfig {
            bandwidth,
            windows: section.list("windows", WINDOWS_MAX, reading, DayWindow::parse),
            order: read_order(section, reading),
            parallel: usize::try_from(parallel).unwrap_or(1),
            daily_bytes,
            metered_links,
            metered_templates: section.list("metered_templates", NAMES_MAX, reading, name),
        }
    }
}

/// One more than `parallel` files may be on their way, each with one request.
fn read_daily_budget(text: &str, parallel: u32) -> Result<u64, String> {
    let bytes = parse_size(text)?;
    let least = DAILY_BUDGET_TIMES * (u64::from(parallel) + 1) * MULTIPART_BYTES_MIN;
    if bytes < least {
        let mib = least >> 20;
        return Err(format!("is less than {mib}MiB, which upload.parallel = {parallel} needs"));
    }
    Ok(bytes)
}

fn read_order(section: &mut Section<'_>, reading: &mut Reading<'_>) -> UploadOrder {
    let order = UploadOrder::default();
    let newest_first = section.parsed("order", reading, |text| match text {
        "oldest" => Ok(false),
        "newest" => Ok(true),
        _ => Err("is neither `oldest` nor `newest`".to_owned()),
    });
    let newest_first = newest_first.unwrap_or(order.newest_first);
    if !section.has("priorities") {
        return UploadOrder { newest_first, ..order };
    }
    let before = reading.count();
    let kinds = section.list("priorities", UploadKind::ALL.len(), reading, str::parse);
    let all = UploadKind::ALL.iter().all(|kind| kinds.contains(kind));
    let kinds = match <[UploadKind; 3]>::try_from(kinds) {
        Ok(kinds) if all => kinds,
        _ => {
            if reading.count() == before {
                let what = "does not name `highlight`, `timed` and `template` once each";
                section.fault("priorities", what, reading);
            }
            order.kinds
        }
    };
    UploadOrder { kinds, newest_first }
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX {
        return Err("is not a name".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;
    use crate::platform::flash::SystemFlash;

    fn parse(keys: &str) -> Result<UploadPlanConfig, String> {
        let text = format!("[upload]\ntarget = \"directory\"\npath = \"/usb\"\n{keys}");
        let config = Config::parse(&text, Path::new("/etc"), &SystemFlash);
        config
            .map(|config| config.upload.expect("there").plan)
            .map_err(|faults| faults.to_string().trim().to_owned())
    }

    #[test]
    fn without_a_word_two_files_at_a_time_go_out_at_any_time() {
        let plan = parse("").expect("valid");
        assert_eq!((plan.parallel, plan.order), (2, UploadOrder::default()));
        assert_eq!((plan.bandwidth, plan.daily_bytes, plan.windows.len()), (None, None, 0));
    }

    #[test]
    fn every_key_is_read() {
        let plan = parse(
            "bandwidth = \"8Mbit\"\nwindows = [\"22:00-06:00\", \"12:00-13:00\"]\norder = \"newest\"\n\
             priorities = [\"timed\", \"highlight\", \"template\"]\nparallel = 3\n\
             daily_budget = \"2GiB\"\nmetered_links = [\"wwan*\"]\nmetered_templates = [\"alarm\"]",
        )
        .expect("valid");
        assert_eq!(plan.bandwidth, Some(BitRate(8_000_000)));
        assert_eq!((plan.windows.len(), plan.parallel), (2, 3));
        assert_eq!(plan.daily_bytes, Some(2 << 30));
        assert!(plan.order.newest_first && plan.order.kinds[0] == UploadKind::Timed);
        assert_eq!((&*plan.metered_links[0], &*plan.metered_templates[0]), ("wwan*", "alarm"));
    }

    #[test]
    fn a_budget_is_twice_what_may_be_on_its_way() {
        for (parallel, mib) in [(1, 64), (2, 96), (8, 288)] {
            let plan = parse(&format!("parallel = {parallel}\ndaily_budget = \"{mib}MiB\""));
            assert_eq!(plan.expect("enough").daily_bytes, Some(mib << 20));
        }
    }

    #[test]
    fn bad_values_are_said_clearly() {
        for (keys, what) in [
            ("bandwidth = \"63kbit\"", "upload.bandwidth: is less than 64kbit"),
            (
                "daily_budget = \"63MiB\"\nparallel = 1",
                "upload.daily_budget: is less than 64MiB, which upload.parallel = 1 needs",
            ),
            (
                "daily_budget = \"95MiB\"",
                "upload.daily_budget: is less than 96MiB, which upload.parallel = 2 needs",
            ),
            (
                "parallel = 8\ndaily_budget = \"287MiB\"",
                "upload.daily_budget: is less than 288MiB, which upload.parallel = 8 needs",
            ),
            ("parallel = 9", "upload.parallel: is outside 1..=8"),
            ("order = \"random\"", "upload.order: is neither `oldest` nor `newest`"),
            ("priorities = [\"timed\"]", "does not name `highlight`, `timed` and `template` once"),
            (
                "priorities = [\"timed\", \"timed\", \"template\"]",
                "does not name `highlight`, `timed` and `template` once",
            ),
            ("priorities = [\"live\"]", "upload.priorities[0]: `live` is none of"),
            ("metered_links = [\"\"]", "upload.metered_links[0]: is not a name"),
            ("metered_templates = [\"a\"]", "does nothing without metered_links"),
            ("metered = true", "upload.metered: is not a known key"),
        ] {
            let faults = parse(keys).expect_err(keys);
            assert!(faults.contains(what) && faults.lines().count() == 1, "{keys}: {faults}");
        }
    }
}
