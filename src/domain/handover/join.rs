//! Where two connections are joined, and what of the next one is not needed behind that.

use crate::domain::handover::lane::{KeyFrame, Lane, times_apart_max};
use crate::domain::handover::next::{Join, Joined, Next};
use crate::domain::handover::{HOLD_BYTES_MAX, Handover, KEYLESS_MS, is_late, lasts};
use crate::domain::sample::Sample;
use crate::domain::time::{BootTime, rescale};

/// Clocks that put the two further apart than this are not believed, in milliseconds.
const CLOCKS_APART_MS: i64 = 5_000;

impl Handover {
    /// Joins the two, where that can be done by now.
    pub(super) fn find_join(&mut self, now: BootTime) {
        let (Some(next), Some(lane)) = (&self.next, self.reference()) else { return };
        let (Some(track), Some(keyed)) = (next.reference(), next.keyed) else { return };
        let is_not_described_yet = lane.codec.is_video() && !track.is_video();
        if is_not_described_yet && !next.is_last && !lasts(next.since, now, KEYLESS_MS) {
            return;
        }
        let alike = lane.is_coded_as(track);
        let same = |key: &KeyFrame| Some((*key, self.units.same_key(key)?));
        if let Some((key, known)) = next.keys.iter().find_map(same).filter(|_| alike) {
            let shift = known.pts.saturating_sub(key.pts);
            let dts_shift = known.dts.saturating_sub(key.dts);
            let joined = Joined { join: Join::Same, shift, dts_shift, since: now };
            return self.joined(joined, key.dts);
        }
        let is_full = next.held_bytes() > HOLD_BYTES_MAX;
        if !(next.is_last || next.clocks_failed || is_full || is_late(keyed, now)) {
            return;
        }
        let Some(newest) = next.keys.last().map(|key| key.dts) else { return };
        let due = rescale(lane.due(), lane.timescale, track.timescale);
        let apart_max = rescale(CLOCKS_APART_MS, 1_000, track.timescale);
        let believed = |shift: &i64| (newest.saturating_add(*shift) - due).abs() <= apart_max;
        let by_clocks = self.clock_shift(lane).filter(|_| alike && !next.clocks_failed);
        if let Some(shift) = by_clocks.filter(believed) {
            let joined = Joined { join: Join::Clocks, shift, dts_shift: shift, since: now };
            return self.joined(joined, newest);
        }
        // The current one has sent up to now: an older key frame would bring that once more.
        let has_just_come = next.newest_of_reference().is_some_and(|sample| sample.key);
        if has_just_come || next.is_last || is_full || lasts(keyed, now, KEYLESS_MS) {
            let shift = due.saturating_sub(newest);
            let joined = Joined { join: Join::Follows, shift, dts_shift: shift, since: now };
            self.joined(joined, newest);
        }
    }

    /// By the senders' clocks: what is added to times of the next one's reference.
    fn clock_shift(&self, lane: &Lane) -> Option<i64> {
        let (current, next) = (self.zero?, self.next.as_ref()?.zero?);
        // Difference of wrapping clocks.
        let apart = i128::from(next.wrapping_sub(current).cast_signed());
        let ticks = (apart * i128::from(lane.timescale) + (1 << 31)) >> 32;
        Some(i64::try_from(ticks).ok()?.saturating_add(lane.shift))
    }

    /// What is before the key frame of this dts of the next one's reference is not needed.
    fn joined(&mut self, joined: Joined, first: i64) {
        let Some(next) = &mut self.next else { return };
        next.join = Some(joined);
        if let Some(queue) = next.reference_queue_mut() {
            let place = queue.iter().position(|sample| sample.key && sample.dts == first);
            queue.drain(..place.unwrap_or(0));
        }
    }

    /// Of the same pictures those that went out.
    pub(super) fn drop_what_went_out(&mut self, joined: Joined) {
        let Some(lane) = self.reference() else { return };
        let timescale = lane.timescale;
        let old = lane.last.map(|last| last.saturating_sub(times_apart_max(timescale)));
        let units = &self.units;
        let Some(queue) = self.next.as_mut().and_then(Next::reference_queue_mut) else { return };
        // What the current one lost cannot be put in behind what came after it.
        let went_out = |sample: &Sample| {
            units.has(sample.pts.saturating_add(joined.shift), timescale)
                || old.is_some_and(|old| sample.dts.saturating_add(joined.dts_shift) <= old)
        };
        while queue.front().is_some_and(went_out) {
            queue.pop_front();
        }
    }

    /// Of other pictures only a key frame behind what went out can take over.
    pub(super) fn drop_to_key_behind(&mut self, shift: i64) {
        let Some(lane) = self.reference() else { return };
        let behind = lane.last.map_or(i64::MIN, |last| last.saturating_add(lane.half_step()));
        let Some(queue) = self.next.as_mut().and_then(Next::reference_queue_mut) else { return };
        let takes_over = |sample: &Sample| sample.key && sample.dts.saturating_add(shift) > behind;
        while queue.front().is_some_and(|sample| !takes_over(sample)) {
            queue.pop_front();
        }
    }
}
