//! Decoding times for pictures that come with presentation times only, as RTP has them.
//!
//! Pictures arrive in decoding order. With a reorder depth of `d` (at most `d` pictures come before
//! another one in decoding order and after it in output order) the dts of the i-th picture is the
//! (i-d)-th smallest pts: final as soon as the i-th picture is there, never above the picture's own
//! pts, never falling. The first `d` dts lie before the smallest pts, one frame duration apart; they
//! are held back until `d + 2` pictures have come, because only then the two smallest pts, and with
//! them the duration, are final.
//!
//! - Depth known to be 0: dts = pts, whatever the pts do; nothing is held back.
//! - Depth unknown: up to [`OBSERVED_PICTURES`] pictures or [`OBSERVED_MS`] of media are held back
//!   and the depth they show is taken. If later pictures show a greater one, it grows, and the dts
//!   stand still meanwhile (for these few pictures dts may exceed pts).
//! - A jump (limits of a timeline) begins anew, as at the start of the stream.
//!
//! All this depends on the order and values of the pts alone, never on when they arrive.

use std::collections::VecDeque;

use crate::domain::limits::{TIMELINE_STEP_BACK_MS, TIMELINE_STEP_FORWARD_MS};
use crate::domain::time::rescale;

/// Greatest reorder depth of H.264 and H.265 (size of the decoded picture buffer).
pub const REORDER_DEPTH_MAX: usize = 16;
/// Pictures that are watched when the depth is unknown.
pub const OBSERVED_PICTURES: usize = 8;
/// Media time that is watched when the depth is unknown, in milliseconds.
pub const OBSERVED_MS: i64 = 400;
/// Frames a second where a single picture gives no duration.
const NOMINAL_RATE: u32 = 25;

/// Derives decoding times: push a pts for each picture, pop a dts for each, in the same order.
#[derive(Debug, Clone)]
pub struct DecodeOrder {
    /// Ticks a second.
    timescale: u32,
    /// What the stream states.
    stated: Option<usize>,
    /// Where it stands.
    phase: Phase,
    /// Derived and not yet popped.
    ready: VecDeque<i64>,
}

/// Before or after the first dts of a stretch are known.
#[derive(Debug, Clone)]
enum Phase {
    /// Held back: pts in decoding order.
    Held(Vec<i64>),
    /// Running.
    Running {
        /// The depth in use.
        depth: usize,
        /// Greatest pts, sorted, that no dts has been taken from; `depth` of them as a rule.
        window: Vec<i64>,
        /// The dts before.
        last_dts: i64,
        /// The greatest pts.
        newest: i64,
    },
}

impl DecodeOrder {
    /// For pts of `timescale` ticks a second and the depth that the stream states, if it does.
    #[must_use]
    pub fn new(timescale: u32, depth: Option<u8>) -> Self {
        DecodeOrder {
            timescale: timescale.max(1),
            stated: depth.map(bounded),
            phase: Phase::Held(Vec::new()),
            ready: VecDeque::new(),
        }
    }

    /// Takes the pts of the next picture in decoding order.
    pub fn push(&mut self, pts: i64) {
        if self.stated == Some(0) {
            self.flush();
            self.ready.push_back(pts);
            return;
        }
        if self.jumps_to(pts) {
            self.flush();
            self.phase = Phase::Held(Vec::new());
        }
        match &mut self.phase {
            Phase::Held(held) => {
                held.push(pts);
                if self.start_is_known() {
                    self.flush();
                }
            }
            Phase::Running { depth, window, last_dts, newest } => {
                let dts = advance(depth, window, *last_dts, pts);
                *last_dts = dts;
                *newest = pts.max(*newest);
                self.ready.push_back(dts);
            }
        }
    }

    /// The dts of the oldest picture that has none yet, if it is known.
    pub fn pop(&mut self) -> Option<i64> {
        self.ready.pop_front()
    }

    /// Gives every held picture its dts from what is known by now: at the end of the stream, or
    /// when no more can be held.
    pub fn flush(&mut self) {
        let Phase::Held(held) = &mut self.phase else { return };
        if held.is_empty() {
            return;
        }
        let held = std::mem::take(held);
        let depth = self.stated.unwrap_or_else(|| observed_depth(&held));
        let mut sorted = held.clone();
        sorted.sort_unstable();
        let (first, newest) = (sorted[0], sorted[sorted.len() - 1]);
        let duration = sorted
            .iter()
            .find(|pts| **pts > first)
            .map_or_else(|| i64::from(self.timescale / NOMINAL_RATE), |next| next - first);

        let mut window = Vec::with_capacity(depth + 1);
        let mut last_dts = i64::MIN;
        for (index, pts) in held.into_iter().enumerate() {
            last_dts = if index < depth {
                let ahead = i64::try_from(depth - index).unwrap_or(0);
                insert_sorted(&mut window, pts);
                first.saturating_sub(duration.saturating_mul(ahead))
            } else {
                insert_sorted(&mut window, pts);
                window.remove(0)
            };
            self.ready.push_back(last_dts);
        }
        // A stretch cut short has fewer pts than the depth: what is missing is the time before it.
        let missing = depth.saturating_sub(window.len());
        window.splice(
            0..0,
            (1..=missing).rev().map(|ahead| {
                first.saturating_sub(duration.saturating_mul(i64::try_from(ahead).unwrap_or(0)))
            }),
        );
        window.iter_mut().for_each(|pts| *pts = (*pts).max(last_dts));
        self.phase = Phase::Running { depth, window, last_dts, newest };
    }

    /// Takes over a new statement of the depth (parameters have changed).
    pub fn restate(&mut self, depth: Option<u8>) {
        self.flush();
        self.stated = depth.map(bounded);
        if let (Phase::Running { depth, .. }, Some(stated)) = (&mut self.phase, self.stated) {
            *depth = stated;
        }
    }

    /// Whether the pts is too far from those before to be of the same stretch.
    fn jumps_to(&self, pts: i64) -> bool {
        let (low, high) = match &self.phase {
            Phase::Held(held) => match (held.iter().min(), held.iter().max()) {
                (Some(low), Some(high)) => (*low, *high),
                _ => return false,
            },
            Phase::Running { last_dts, newest, .. } => (*last_dts, *newest),
        };
        pts < low.saturating_sub(rescale(TIMELINE_STEP_BACK_MS, 1_000, self.timescale))
            || pts > high.saturating_add(rescale(TIMELINE_STEP_FORWARD_MS, 1_000, self.timescale))
    }

    /// Whether enough pictures are held to say the first dts.
    fn start_is_known(&self) -> bool {
        let Phase::Held(held) = &self.phase else { return false };
        match (self.stated, held.iter().min(), held.iter().max()) {
            (Some(depth), ..) => held.len() >= depth + 2,
            (None, Some(low), Some(high)) => {
                held.len() >= OBSERVED_PICTURES
                    || high.saturating_sub(*low) >= rescale(OBSERVED_MS, 1_000, self.timescale)
            }
            _ => false,
        }
    }
}

/// One step of a running stretch: the dts of the picture with this pts.
fn advance(depth: &mut usize, window: &mut Vec<i64>, last_dts: i64, pts: i64) -> i64 {
    if pts < last_dts {
        // Reordered deeper than thought: hold one more from now on, once per group.
        if window.len() >= *depth && *depth < REORDER_DEPTH_MAX {
            *depth += 1;
        }
        return last_dts;
    }
    insert_sorted(window, pts);
    let mut dts = last_dts;
    while window.len() > *depth {
        dts = window.remove(0);
    }
    dts
}

fn bounded(depth: u8) -> usize {
    usize::from(depth).min(REORDER_DEPTH_MAX)
}

fn insert_sorted(window: &mut Vec<i64>, pts: i64) {
    window.insert(window.partition_point(|other| *other <= pts), pts);
}

/// The greatest number of pictures that come before one of these and are shown after it.
fn observed_depth(held: &[i64]) -> usize {
    held.iter()
        .enumerate()
        .map(|(index, pts)| held[..index].iter().filter(|before| *before > pts).count())
        .max()
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn derive(order: &mut DecodeOrder, pts: &[i64]) -> Vec<i64> {
        pts.iter().for_each(|pts| order.push(*pts));
        order.flush();
        std::iter::from_fn(|| order.pop()).collect()
    }

    fn derived(depth: Option<u8>, pts: &[i64]) -> Vec<i64> {
        derive(&mut DecodeOrder::new(90_000, depth), pts)
    }

    #[test]
    fn two_b_frames_give_the_encoders_dts() {
        // I P B B P B B at 25 frames a second; an encoder numbers decoding one frame apart.
        let pts = [0, 10_800, 3_600, 7_200, 21_600, 14_400, 18_000, 32_400, 25_200, 28_800];
        let dts: Vec<i64> = (0..10).map(|index| (index - 1) * 3_600).collect();
        assert_eq!(derived(Some(1), &pts), dts);
        assert_eq!(derived(None, &pts), dts);
    }

    #[test]
    fn a_pyramid_has_depth_two() {
        let pts = [0, 4, 2, 1, 3, 8, 6, 5, 7].map(|frame: i64| 1_000_000 + frame * 3_000);
        let dts: Vec<i64> = (0..9).map(|index| 1_000_000 + (index - 2) * 3_000).collect();
        assert_eq!(derived(Some(2), &pts), dts);
        assert_eq!(derived(None, &pts), dts);
    }

    #[test]
    fn nothing_is_held_without_reordering_and_pts_are_kept_as_given() {
        let mut order = DecodeOrder::new(90_000, Some(0));
        for pts in [5, 3_605, 3_500, -200_000, i64::MAX, i64::MIN] {
            order.push(pts);
            assert_eq!(order.pop(), Some(pts));
        }
    }

    #[test]
    fn holding_back_is_bounded() {
        for (depth, bound) in [(Some(1), 3), (Some(16), 18), (Some(200), 18), (None, 8)] {
            let mut order = DecodeOrder::new(90_000, depth);
            let first = (1..)
                .find(|index| {
                    order.push(index * 300);
                    order.pop().is_some()
                })
                .expect("some dts");
            assert_eq!(first, bound, "{depth:?}");
        }
        // A picture a second: the second one ends the watching.
        let mut order = DecodeOrder::new(90_000, None);
        order.push(0);
        assert_eq!(order.pop(), None);
        order.push(90_000);
        assert_eq!((order.pop(), order.pop()), (Some(0), Some(90_000)));
    }

    #[test]
    fn b_frames_that_begin_late_raise_the_depth_once() {
        let mut pts: Vec<i64> = (0..10).map(|index| index * 3_600).collect();
        for group in 3..8 {
            pts.extend([3, 1, 2].map(|frame| (group * 3 + frame) * 3_600));
        }
        let dts = derived(None, &pts);
        assert!(dts.is_sorted());
        let late = pts.iter().zip(&dts).filter(|(pts, dts)| dts > pts).count();
        assert_eq!(late, 2, "the two pictures of the first group");
        assert_eq!(dts.last(), pts.last(), "the lag is one picture");
    }

    #[test]
    fn a_jump_begins_anew() {
        for start in [10_000_000, -10_000_000] {
            let group = [0, 10_800, 3_600, 7_200, 21_600, 14_400, 18_000];
            let pts: Vec<i64> = group.into_iter().chain(group.map(|pts| pts + start)).collect();
            let dts = derived(Some(1), &pts);
            let alone: Vec<i64> = (0..7).map(|index| (index - 1) * 3_600).collect();
            assert_eq!(dts[..7], alone);
            assert_eq!(dts[7..], alone.iter().map(|dts| dts + start).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_single_picture_gets_a_nominal_duration() {
        assert_eq!(derived(Some(2), &[1_000]), [1_000 - 7_200]);
    }

    #[test]
    fn changed_depth_goes_on_without_a_step_back() {
        let mut order = DecodeOrder::new(90_000, Some(1));
        let mut dts = derive(&mut order, &[0, 10_800, 3_600, 7_200, 21_600, 14_400, 18_000]);
        order.restate(Some(2));
        let pyramid = [7, 11, 9, 8, 10, 15, 13, 12, 14].map(|frame| frame * 3_600);
        dts.extend(derive(&mut order, &pyramid));
        order.restate(Some(0));
        dts.extend(derive(&mut order, &[57_600, 61_200]));
        assert_eq!(dts.len(), 18);
        assert!(dts.is_sorted(), "{dts:?}");
    }

    proptest! {
        /// Any decoding order of the stated depth: as many dts as pictures, none above its pts,
        /// none below the one before.
        #[test]
        fn dts_never_fall_and_never_exceed_pts(
            depth in 0_usize..6,
            picks in prop::collection::vec(0_usize..6, 1..120),
            // Six pictures stay within the step back of a timeline.
            step in 1_i64..15_000,
        ) {
            let pts = reordered(depth, &picks, step);
            let dts = derived(Some(u8::try_from(depth).expect("small")), &pts);
            prop_assert_eq!(dts.len(), pts.len());
            prop_assert!(dts.is_sorted());
            prop_assert!(dts.iter().zip(&pts).all(|(dts, pts)| dts <= pts));
        }

        /// Whatever a camera sends: one dts for each picture, held pictures bounded, no panic.
        #[test]
        fn any_pts_get_a_dts(
            depth in prop::option::of(any::<u8>()),
            pts in prop::collection::vec(any::<i64>(), 1..60),
            restate in prop::option::of((0_usize..60, prop::option::of(any::<u8>()))),
        ) {
            let mut order = DecodeOrder::new(90_000, depth);
            let mut waiting = 0;
            for (index, pts) in pts.iter().enumerate() {
                if let Some((_, depth)) = restate.filter(|(at, _)| *at == index) {
                    order.restate(depth);
                }
                order.push(*pts);
                waiting += 1;
                waiting -= std::iter::from_fn(|| order.pop()).count();
                prop_assert!(waiting <= REORDER_DEPTH_MAX + 2);
            }
            order.flush();
            waiting -= std::iter::from_fn(|| order.pop()).count();
            prop_assert_eq!(waiting, 0);
        }
    }

    /// A decoding order in which at most `depth` pictures overtake another: each pick delays that
    /// many of the pictures that are due.
    fn reordered(depth: usize, picks: &[usize], step: i64) -> Vec<i64> {
        let mut pending: Vec<i64> = Vec::new();
        let mut overtaken: Vec<usize> = Vec::new();
        let mut next = 0;
        let mut out = Vec::new();
        for pick in picks {
            while pending.len() <= depth {
                pending.push(next * step);
                overtaken.push(0);
                next += 1;
            }
            // Taking entry `n` overtakes all before it; none may be overtaken more than `depth` times.
            let reach = overtaken.iter().position(|times| *times >= depth).unwrap_or(depth);
            let taken = (*pick).min(reach);
            out.push(pending.remove(taken));
            overtaken.remove(taken);
            overtaken[..taken].iter_mut().for_each(|times| *times += 1);
        }
        out
    }
}
