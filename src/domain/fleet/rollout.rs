//! A new rule set reaches a fleet in steps: first a few boxes, then more, each step only after those
//! before it are well.

use std::collections::BTreeMap;
use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;

/// A share of the boxes, from 1 to 100 in a hundred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Percent(NonZeroU8);

impl Percent {
    /// So many of `boxes`, rounded up.
    fn of(self, boxes: usize) -> usize {
        (boxes * usize::from(self.0.get())).div_ceil(100)
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_suffix('%').unwrap_or(text).parse().ok();
        let number = number.filter(|number: &NonZeroU8| number.get() <= 100);
        number.map(Percent).ok_or_else(|| "this is no share from 1% to 100%".to_owned())
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// How many boxes get the rules one group after the other before all do: the canaries, then a step
/// each as long as boxes are left after it.
#[must_use]
pub fn groups(boxes: usize, canary: Percent, step: Percent) -> Vec<usize> {
    let first = canary.of(boxes);
    if first == 0 {
        return Vec::new();
    }
    let (mut groups, mut reached) = (vec![first], first);
    while reached + step.of(boxes) < boxes {
        reached += step.of(boxes);
        groups.push(step.of(boxes));
    }
    groups
}

/// What a box says of itself, as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Report {
    /// It is there.
    pub online: bool,
    /// The revision of the layer that came last.
    pub received: Option<u64>,
    /// The one that is in force.
    pub applied: Option<u64>,
    /// Why one was refused: its revision and the reason.
    pub refused: Option<(Option<u64>, String)>,
    /// Its live streams, and whether each still waits to be restarted; `None`: they did not fit.
    pub streams: Option<BTreeMap<String, bool>>,
}

/// How a box stands with the rules that it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// They are in force and its streams are live.
    Well,
    /// It is not there.
    Away,
    /// Not yet, and why.
    Waits(String),
    /// It will not come to that, and why.
    Broken(String),
}

/// How a box stands that was given a revision while `live` streams were live.
#[must_use]
pub fn standing(report: &Report, revision: u64, live: &[String]) -> Standing {
    match &report.refused {
        Some((of, why)) if *of == Some(revision) => {
            return Standing::Broken(format!("refused: {why}"));
        }
        _ => {}
    }
    let newer = report.applied.filter(|newest| *newest > revision);
    if let Some(newest) = newer {
        return Standing::Broken(format!("has revision {newest}, which somebody else has sent"));
    }
    if report.received == Some(revision) && report.applied != Some(revision) {
        let back = report.applied.map_or("none".to_owned(), |applied| applied.to_string());
        return Standing::Broken(format!("went back to revision {back} by itself"));
    }
    if !report.online {
        return Standing::Away;
    }
    if report.applied != Some(revision) {
        return Standing::Waits("has not taken it yet".to_owned());
    }
    let Some(streams) = &report.streams else { return Standing::Well };
    for key in live {
        match streams.get(key) {
            None => return Standing::Waits(format!("{key} is not live again")),
            Some(true) => return Standing::Waits(format!("{key} is not restarted yet")),
            Some(false) => {}
        }
    }
    Standing::Well
}

#[cfg(test)]
mod tests {
    use super::*;

    fn percent(text: &str) -> Percent {
        text.parse().expect("a share")
    }

    #[test]
    fn shares_are_from_one_to_a_hundred() {
        assert_eq!((percent("5%"), percent("100").to_string()), (percent("5"), "100%".to_owned()));
        for bad in ["", "%", "0", "101%", "-5", "5.5%", "5 %"] {
            assert!(bad.parse::<Percent>().is_err(), "{bad}");
        }
    }

    #[test]
    fn groups_grow_from_the_canaries_and_leave_somebody_for_the_last_step() {
        let of = |boxes, canary, step| groups(boxes, percent(canary), percent(step));
        assert_eq!(of(1_000, "5%", "25%"), [50, 250, 250, 250]);
        assert_eq!(of(3, "5%", "25%"), [1, 1]);
        assert_eq!(of(1, "5%", "25%"), [1], "one box is tried as well");
        assert_eq!(of(10, "100%", "25%"), [10]);
        assert_eq!(of(0, "5%", "25%"), [0; 0]);
        for boxes in 1..300 {
            let groups = of(boxes, "3%", "7%");
            let staged: usize = groups.iter().sum();
            assert!(groups.iter().all(|group| *group > 0) && (staged < boxes || groups.len() == 1));
        }
    }

    fn report() -> Report {
        let streams = BTreeMap::from([("d/live/cam".to_owned(), false)]);
        let (received, applied) = (Some(7), Some(7));
        Report { online: true, received, applied, refused: None, streams: Some(streams) }
    }

    #[test]
    fn a_box_is_well_with_the_rules_in_force_and_its_streams_live() {
        let live = ["d/live/cam".to_owned()];
        assert_eq!(standing(&report(), 7, &live), Standing::Well);
        let waits = |change: &dyn Fn(&mut Report), why: &str| {
            let mut report = report();
            change(&mut report);
            assert_eq!(standing(&report, 7, &live), Standing::Waits(why.to_owned()));
        };
        assert_eq!(standing(&Report { online: false, ..report() }, 7, &live), Standing::Away);
        waits(&|r| (r.received, r.applied) = (Some(6), Some(6)), "has not taken it yet");
        waits(&|r| (r.received, r.applied) = (None, None), "has not taken it yet");
        waits(&|r| r.streams = Some(BTreeMap::new()), "d/live/cam is not live again");
        waits(
            &|r| r.streams = Some(BTreeMap::from([("d/live/cam".to_owned(), true)])),
            "d/live/cam is not restarted yet",
        );
        let untold = Report { streams: None, ..report() };
        assert_eq!(standing(&untold, 7, &live), Standing::Well);
    }

    #[test]
    fn a_box_that_refuses_or_goes_back_is_broken() {
        let broken = |change: &dyn Fn(&mut Report)| {
            let mut report = report();
            change(&mut report);
            match standing(&report, 7, &[]) {
                Standing::Broken(why) => why,
                other => panic!("{other:?}"),
            }
        };
        let refused = broken(&|r| r.refused = Some((Some(7), "malformed".to_owned())));
        assert_eq!(refused, "refused: malformed");
        assert_eq!(broken(&|r| r.applied = Some(5)), "went back to revision 5 by itself");
        assert_eq!(broken(&|r| r.applied = None), "went back to revision none by itself");
        let other = broken(&|r| (r.received, r.applied) = (Some(8), Some(8)));
        assert_eq!(other, "has revision 8, which somebody else has sent");
        // What somebody else has sent and the box refused is not ours.
        let poison = Some((Some(3), "older".to_owned()));
        let report = Report { refused: poison, ..report() };
        assert_eq!(standing(&report, 7, &[]), Standing::Well);
    }
}
