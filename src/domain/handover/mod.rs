//! One stream from two connections, one after the other: a camera is opened anew beside the connection
//! that is recorded, and takes its place without a gap. Pure; fed with what both bring and with time.
//!
//! Rules
//! 1. While the two are not joined, what the current one brings goes out, and what the next one brings
//!    is held, at most [`HOLD_BYTES_MAX`], and [`HOLD_MS`] or until the key frame that (3) waits for.
//! 2. They are joined where a key frame of the next one has the bytes of one that went out: times of the
//!    next are shifted by the difference of the two, and what went out already is dropped.
//! 3. Where no key frame is the same (another encoder or profile), the senders' clocks join them, at a
//!    key frame of the next one behind what went out; without clocks that can be believed the next key
//!    frame to come follows what went out.
//! 4. Once joined, what the current one brings waits, as the next one will bring it: the first of the
//!    next one that did not go out takes over, and of what waits only that before it goes out. If it
//!    does not come within [`HOLD_MS`], what waits goes out; the handover is given up (2) or made at the
//!    next key frame (3). It is given up too if the next one brings no key frame within [`KEYLESS_MS`].
//! 5. Pictures, or else the first track, are the reference, of which all this is said. Each other track
//!    is switched after it, in the same way, by its time relative to the reference.

mod ids;
mod join;
mod lane;
mod next;

use std::collections::VecDeque;

use crate::domain::handover::ids::Ids;
use crate::domain::handover::lane::{Lane, Side, Units, times_apart_max};
use crate::domain::handover::next::{Join, Next};
use crate::domain::sample::{Sample, Track, TrackId};
use crate::domain::time::{BootTime, rescale};

/// The longest that samples wait for the other side, in milliseconds.
pub const HOLD_MS: u64 = 3_000;
/// Bytes that wait on each side at most, and one sample more.
pub const HOLD_BYTES_MAX: usize = 8 << 20;
/// The longest wait for a key frame of the next one, in milliseconds.
const KEYLESS_MS: u64 = 10_000;

/// What a connection brings, in order, and what goes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// All tracks that are described by now, and what is left out, in words.
    Tracks(Vec<Track>, Vec<String>),
    /// The RTP time that is 0 in the samples of a track; before its first sample.
    Origin(TrackId, i64),
    /// A sample of a track that was announced and has an origin.
    Sample(Sample),
}

/// How a handover stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// There is one connection.
    Alone,
    /// Two, and the current one is still needed.
    Beside,
    /// The next one brings everything; to be told with [`Handover::promote`].
    Switched,
    /// The next one did not bring what it should: everything is as before.
    GaveUp,
}

/// The machine of one stream.
#[derive(Debug, Default)]
pub struct Handover {
    lanes: Vec<Lane>,
    /// What the current one's tracks are called.
    ids: Ids,
    units: Units,
    /// The sender's clock at time 0 of the current one's reference.
    zero: Option<u64>,
    next: Option<Next>,
    gave_up: bool,
    /// As the current one announced them.
    tracks: (Vec<Track>, Vec<String>),
    out: VecDeque<Output>,
}

impl Handover {
    /// What goes out, in order.
    pub fn next_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// A connection is opened beside the current one.
    pub fn begin(&mut self, now: BootTime) {
        self.abandon();
        (self.next, self.gave_up) = (Some(Next::since(now)), false);
    }

    /// There will be no handover: what waits goes out, and the current one goes on.
    pub fn abandon(&mut self) {
        let Some(next) = self.next.take() else { return };
        if next.switched.is_some() {
            let last = |id| self.lanes.iter().find(|lane| lane.id == id).and_then(|lane| lane.last);
            let restored = next.before.into_iter().map(|lane| Lane {
                last: lane.last.max(last(lane.id)),
                joins: true,
                ..lane
            });
            self.lanes = restored.collect();
            let (tracks, left_out) = self.tracks.clone();
            self.out.push_back(Output::Tracks(tracks, left_out));
        }
        next.waiting.into_values().flatten().for_each(|sample| self.send(sample));
    }

    /// The current connection has ended: what the next one has goes out as soon as it can.
    pub fn current_ended(&mut self, now: BootTime) {
        if let Some(next) = &mut self.next {
            next.is_last = true;
        }
        self.advance(now);
    }

    /// The next connection is the current one from now on.
    pub fn promote(&mut self) {
        if self.standing() == Standing::Switched {
            if let Some(next) = self.next.take() {
                (self.zero, self.ids) = (next.zero, next.ids);
                self.tracks = (next.tracks, next.left_out);
            }
            self.lanes.iter_mut().for_each(|lane| lane.from = Side::Current);
        }
    }

    /// How it stands.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match &self.next {
            None if self.gave_up => Standing::GaveUp,
            None => Standing::Alone,
            Some(next) if next.switched.is_none() => Standing::Beside,
            Some(_) if self.lanes.iter().any(|lane| lane.from == Side::Current) => Standing::Beside,
            Some(_) => Standing::Switched,
        }
    }

    /// The sender's clock (NTP, 32.32 fixed point) at time 0 of the current one's reference.
    pub fn current_clock(&mut self, zero: u64) {
        self.zero = Some(zero);
    }

    /// The same of the next one.
    pub fn next_clock(&mut self, zero: u64) {
        if let Some(next) = &mut self.next {
            next.zero = Some(zero);
        }
    }

    /// What the current connection brings.
    pub fn current(&mut self, output: Output, now: BootTime) {
        let switched = self.next.as_ref().is_some_and(|next| next.switched.is_some());
        match output {
            // Its tracks are announced no more once the other's are.
            Output::Tracks(..) if switched => {}
            Output::Tracks(tracks, left_out) => {
                let tracks = self.ids.rename(tracks, &[]);
                let known = |track: &Track| self.lanes.iter().find(|lane| lane.is_like(track));
                let lanes = tracks.iter().map(|track| known(track).cloned());
                let lanes: Vec<Option<Lane>> = lanes.collect();
                self.lanes = lanes
                    .into_iter()
                    .zip(&tracks)
                    .map(|(known, track)| known.unwrap_or_else(|| self.lane_beside(track)))
                    .collect();
                self.tracks = (tracks.clone(), left_out.clone());
                self.out.push_back(Output::Tracks(tracks, left_out));
            }
            Output::Origin(track, raw) => {
                let track = self.ids.of(track);
                if let Some(lane) = self.lane(track, Side::Current) {
                    let raw = raw.saturating_sub(lane.shift);
                    self.out.push_back(Output::Origin(track, raw));
                }
            }
            Output::Sample(sample) => {
                let track = self.ids.of(sample.track);
                self.current_sample(Sample { track, ..sample });
            }
        }
        self.advance(now);
    }

    /// What the next connection brings.
    pub fn next(&mut self, output: Output, now: BootTime) {
        let Some(next) = &mut self.next else { return };
        match output {
            Output::Tracks(tracks, left_out) => {
                next.announce(tracks, left_out, &self.lanes, now);
                if next.switched.is_some() {
                    self.announce_next();
                }
            }
            Output::Origin(track, raw) => {
                next.origins.insert(next.ids.of(track), raw);
            }
            Output::Sample(sample) => {
                let track = next.ids.of(sample.track);
                next.hold(Sample { track, ..sample }, now);
            }
        }
        self.advance(now);
    }

    /// Time passes: to be told a few times a second while a handover is under way.
    pub fn tick(&mut self, now: BootTime) {
        self.advance(now);
    }

    /// A track that shows up later is on the axis of the others.
    fn lane_beside(&self, track: &Track) -> Lane {
        let reference = self.lanes.iter().find(|lane| lane.from == Side::Current);
        let shift = reference.map_or(0, |of| rescale(of.shift, of.timescale, track.timescale));
        Lane { shift, ..Lane::of(track) }
    }

    fn lane(&self, track: TrackId, from: Side) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.id == track && lane.from == from)
    }

    /// Pictures, or else the first track.
    fn reference(&self) -> Option<&Lane> {
        self.lanes.iter().find(|lane| lane.codec.is_video()).or(self.lanes.first())
    }

    fn current_sample(&mut self, sample: Sample) {
        let Some(lane) = self.lane(sample.track, Side::Current) else { return };
        let sample = shifted(sample, lane.shift);
        let of_reference = self.is_reference(sample.track);
        let Some(next) = &mut self.next else { return self.send(sample) };
        // Of the reference once it is joined, of others once the reference was switched.
        let waits = if of_reference { next.join.is_some() } else { next.switched.is_some() };
        if waits {
            next.waiting.entry(sample.track).or_default().push_back(sample);
        } else {
            self.send(sample);
        }
    }

    fn is_reference(&self, track: TrackId) -> bool {
        self.reference().is_some_and(|lane| lane.id == track)
    }

    /// A sample goes out, with times as they go out.
    fn send(&mut self, sample: Sample) {
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == sample.track)
            && !lane.goes_out(sample.dts)
        {
            return;
        }
        if self.is_reference(sample.track) {
            self.units.went_out(&sample);
        }
        self.out.push_back(Output::Sample(sample));
    }

    /// Does what can be done by now.
    fn advance(&mut self, now: BootTime) {
        if self.next.as_ref().is_some_and(|next| next.join.is_none()) {
            self.find_join(now);
        }
        let Some(next) = &self.next else { return };
        let Some(joined) = next.join else {
            if next.keyed.is_none() && lasts(next.since, now, KEYLESS_MS) {
                self.give_up();
            }
            return;
        };
        if next.switched.is_none() {
            match joined.join {
                Join::Same => self.drop_what_went_out(joined),
                Join::Clocks => self.drop_to_key_behind(joined.shift),
                Join::Follows => {}
            }
            let Some(next) = &self.next else { return };
            if next.reference_queue().is_some_and(|queue| !queue.is_empty()) {
                self.switch(now);
            } else if is_late(joined.since, now) || next.waiting_bytes() > HOLD_BYTES_MAX {
                self.wait_no_more(joined.join, now);
            }
        }
        self.switch_others(now);
    }

    /// What the next one should bring has not come.
    fn wait_no_more(&mut self, join: Join, now: BootTime) {
        let Some(next) = &mut self.next else { return };
        if join == Join::Same && !next.is_last {
            return self.give_up();
        }
        (next.join, next.clocks_failed) = (None, true);
        next.wait_for_key(now);
        let waiting = std::mem::take(&mut next.waiting);
        waiting.into_values().flatten().for_each(|sample| self.send(sample));
    }

    fn give_up(&mut self) {
        self.gave_up = true;
        self.abandon();
    }

    /// The reference comes from the next one from now on.
    fn switch(&mut self, now: BootTime) {
        let Some(current) = self.reference().map(|lane| lane.id) else { return };
        let Some(next) = &mut self.next else { return };
        let (Some(reference), Some(joined)) = (next.reference().cloned(), next.join) else {
            return;
        };
        (next.switched, next.before) = (Some(now), self.lanes.clone());
        let first = next.reference_queue().and_then(|queue| queue.front()).map(|first| first.dts);
        let begins = first.unwrap_or(0).saturating_add(joined.dts_shift);
        if joined.join == Join::Same {
            self.let_wait_no_unit_twice(current, joined.shift);
        }
        self.let_go_before(current, begins);
        self.announce_next();
        for lane in &mut self.lanes {
            let may_still_come = joined.join == Join::Same && lane.from == Side::Current;
            if lane.last.is_none() && !may_still_come {
                // Sound that was not there before begins with the pictures.
                lane.last = Some(rescale(begins, reference.timescale, lane.timescale) - 1);
                lane.joins = true;
            }
        }
        self.take_over(reference.id, joined.shift);
    }

    /// Of what waits of a track the first unit that the next one brings too, and what comes after it, is
    /// not needed. Times of presentation tell; those of decoding are derived on each side, and differ by
    /// whole pictures where one has seen deeper reordering.
    fn let_wait_no_unit_twice(&mut self, track: TrackId, shift: i64) {
        let Some(next) = &mut self.next else { return };
        let Some(near) = next.reference().map(|track| times_apart_max(track.timescale)) else {
            return;
        };
        let held = next.reference_queue().into_iter().flatten();
        let held: Vec<i64> = held.map(|sample| sample.pts.saturating_add(shift)).collect();
        let Some(waiting) = next.waiting.get_mut(&track) else { return };
        let comes = |sample: &Sample| held.iter().any(|pts| (pts - sample.pts).abs() <= near);
        if let Some(first) = waiting.iter().position(comes) {
            let before: Vec<Sample> = waiting.drain(..first).collect();
            waiting.clear();
            before.into_iter().for_each(|sample| self.send(sample));
        }
    }

    /// Of what waits of a track that before this dts goes out. Tells whether the current one came up
    /// to there; the rest is not needed then.
    fn let_go_before(&mut self, track: TrackId, dts: i64) -> bool {
        let half = self.lane(track, Side::Current).map_or(0, Lane::half_step);
        let waiting = self.next.as_mut().and_then(|next| next.waiting.remove(&track));
        let (before, rest): (Vec<Sample>, Vec<Sample>) = waiting
            .unwrap_or_default()
            .into_iter()
            .partition(|sample| sample.dts.saturating_add(half) < dts);
        before.into_iter().for_each(|sample| self.send(sample));
        !rest.is_empty()
    }

    /// The tracks are those of the next one: lanes that are like one of its go on, and of others the
    /// current one has nothing to bring.
    fn announce_next(&mut self) {
        let Some(next) = &self.next else { return };
        let (Some(reference), Some(joined)) = (next.reference(), next.join) else { return };
        let known = |track: &Track| self.lanes.iter().find(|lane| lane.is_like(track)).cloned();
        let other = |track: &Track| Lane {
            from: Side::Next,
            shift: rescale(joined.shift, reference.timescale, track.timescale),
            ..Lane::of(track)
        };
        let lanes = next.tracks.iter().map(|track| known(track).unwrap_or_else(|| other(track)));
        self.lanes = lanes.collect();
        self.out.push_back(Output::Tracks(next.tracks.clone(), next.left_out.clone()));
    }

    /// Switches the other tracks, and hands on what comes of those that were.
    fn switch_others(&mut self, now: BootTime) {
        let Some(next) = &self.next else { return };
        let (Some(switched), Some(joined)) = (next.switched, next.join) else { return };
        let Some(reference) = next.reference().cloned() else { return };
        let late = next.is_last || is_late(switched, now);
        for lane in self.lanes.clone() {
            if lane.from == Side::Next {
                self.take_over(lane.id, lane.shift);
                continue;
            }
            let shift = rescale(joined.shift, reference.timescale, lane.timescale);
            let went_out = lane.last.map_or(i64::MIN, |last| last + lane.half_step());
            let first = self.next.as_mut().and_then(|next| {
                let queue = next.held.get_mut(&lane.id)?;
                while queue.front().is_some_and(|sample| sample.dts + shift <= went_out) {
                    queue.pop_front();
                }
                queue.front().map(|sample| sample.dts.saturating_add(shift))
            });
            if first.is_none() && !late {
                continue;
            }
            let first = first.unwrap_or(i64::MAX);
            let came = self.let_go_before(lane.id, first);
            let due = self.lane(lane.id, Side::Current).map_or(0, Lane::due_at_last);
            if came || late || first <= due {
                self.take_over(lane.id, shift);
            }
        }
    }

    /// A track comes from the next one from now on: what is held of it goes out.
    fn take_over(&mut self, track: TrackId, shift: i64) {
        let Some(next) = &mut self.next else { return };
        let (origin, held) = (next.origins.remove(&track), next.held.remove(&track));
        if let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == track)
            && lane.from == Side::Current
        {
            let joins = !lane.codec.is_video();
            *lane = Lane { from: Side::Next, shift, joins, ..lane.clone() };
        }
        if let Some(raw) = origin {
            self.out.push_back(Output::Origin(track, raw.saturating_sub(shift)));
        }
        held.into_iter().flatten().for_each(|sample| self.send(shifted(sample, shift)));
    }
}

fn shifted(sample: Sample, shift: i64) -> Sample {
    let (dts, pts) = (sample.dts.saturating_add(shift), sample.pts.saturating_add(shift));
    Sample { dts, pts, ..sample }
}

fn is_late(since: BootTime, now: BootTime) -> bool {
    lasts(since, now, HOLD_MS)
}

fn lasts(since: BootTime, now: BootTime, ms: u64) -> bool {
    now.0.saturating_sub(since.0) >= ms
}

#[cfg(test)]
mod tests;
