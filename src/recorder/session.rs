//! One session at work: from samples to fragments on the stream's lane.

use std::sync::Arc;

use bytes::Bytes;
use tracing::{info, warn};

use crate::domain::files::FormatSet;
use crate::domain::ids::{FragmentSequence, RecordingId, SessionId};
use crate::domain::limits::{CODEC_CONFIG_BYTES_MAX, SCRIPT_DATA_BYTES_MAX, TRACKS_MAX};
use crate::domain::programme::{Ended, Programme, Steps};
use crate::domain::recording::Boundary;
use crate::domain::sample::{Sample, Track, TrackId};
use crate::domain::time::{BootTime, Instant};
use crate::domain::timeline::{Passed, TimelineGate};
use crate::media::fmp4::init_segment;
use crate::recorder::RecorderSettings;
use crate::recorder::fragmenter::{Fragmenter, has_video};
use crate::recorder::live::LiveTable;
use crate::recorder::media_clock::MediaClock;
use crate::ring::catalog::Catalog;
use crate::ring::fragment::{Fragment, SegmentStart, SessionStart};
use crate::ring::lane::{SessionEnd, StreamLane};
use crate::ring::layout::{SealRecording, SealRecordings};
use crate::ring::live_hub::{LivePiece, LiveSource};

/// More new timelines and new parameters than this within [`CHANGES_WINDOW_MS`] end the session:
/// each costs a new segment on flash, and new files.
const CHANGES_MAX: usize = 30;
/// See [`CHANGES_MAX`], in milliseconds.
const CHANGES_WINDOW_MS: u64 = 10_000;

/// What a [`RecordedSession`] is made of.
pub struct SessionParts {
    /// The session.
    pub session: Arc<SessionStart>,
    /// Its way to the writer.
    pub lane: StreamLane,
    /// Its way to those who watch it live.
    pub watched: LiveSource,
    /// For the gap ledger.
    pub catalog: Catalog,
    /// Shares of the ring are by the number of live streams.
    pub live: Arc<LiveTable>,
    /// How streams are recorded, whatever the rules say.
    pub settings: RecorderSettings,
}

/// The stream cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionFault {
    /// Each change costs a new segment on flash.
    #[error("timestamps or codec parameters change all the time")]
    ChangesAllTheTime,
    /// New rules say that the source shall be dropped, to come back under them.
    #[error("dropped, so that it comes back under new rules")]
    DroppedForRules,
    /// The mixer's mix is over.
    #[error("its mix was cancelled")]
    MixCancelled,
    /// As many streams are recorded as the box can.
    #[error("the box records as many streams as it can")]
    NoRoom,
}

/// A stream on its way to the ring.
pub struct RecordedSession {
    parts: Option<SessionParts>,
    gate: TimelineGate,
    media_clock: MediaClock,
    tracks: Arc<[Track]>,
    origins: Vec<(TrackId, i64)>,
    script_data: Bytes,
    fragmenter: Option<Fragmenter>,
    segments: u32,
    sequence: FragmentSequence,
    /// Changes since the last sample that the next boundary tells the recordings.
    change: Boundary,
    /// Formats whose file begins with the next fragment that gets through, by recording.
    owed: Vec<(RecordingId, FormatSet)>,
    changes: Vec<BootTime>,
    /// Recordings that are over; told to the writer with the next thing that gets through.
    over: Vec<RecordingId>,
    /// The first fragment from which on nothing is missing.
    whole_since: FragmentSequence,
    /// When the last sample was kept.
    last_kept: Option<Instant>,
    now: Instant,
    dropped: u64,
}

impl RecordedSession {
    /// A stream at its start.
    #[must_use]
    pub fn new(parts: SessionParts) -> Self {
        let now = parts.session.began;
        RecordedSession {
            parts: Some(parts),
            gate: TimelineGate::default(),
            media_clock: MediaClock::default(),
            tracks: Arc::from([]),
            origins: Vec::new(),
            script_data: Bytes::new(),
            fragmenter: None,
            segments: 0,
            sequence: FragmentSequence(0),
            change: Boundary::default(),
            owed: Vec::new(),
            changes: Vec::new(),
            over: Vec::new(),
            whole_since: FragmentSequence(0),
            last_kept: None,
            now,
            dropped: 0,
        }
    }

    fn parts(&mut self) -> &mut SessionParts {
        self.parts.as_mut().expect("only `finish` takes the parts")
    }

    /// The session.
    ///
    /// # Panics
    /// Never: the parts leave with the session.
    #[must_use]
    pub fn start(&self) -> Arc<SessionStart> {
        self.parts.as_ref().expect("only `end` takes the parts").session.clone()
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> SessionId {
        self.start().id
    }

    /// The first fragment from which on every sample was kept.
    #[must_use]
    pub fn whole_since(&self) -> FragmentSequence {
        self.whole_since
    }

    /// When the last sample was kept.
    #[must_use]
    pub fn last_kept(&self) -> Option<Instant> {
        self.last_kept
    }

    /// Passes the samples that the gate lets through, in order.
    fn through_gate(
        &mut self,
        programme: &mut Programme,
        push: impl FnOnce(&mut TimelineGate, &mut dyn FnMut(Passed)),
    ) {
        let mut gate = std::mem::take(&mut self.gate);
        push(&mut gate, &mut |passed| match passed {
            Passed::NewTimeline => self.new_timeline(),
            Passed::Sample(sample) => self.take(programme, sample),
        });
        self.gate = gate;
    }

    fn new_timeline(&mut self) {
        self.media_clock.new_timeline();
        self.change.new_timeline = true;
        self.note_change();
    }

    fn note_change(&mut self) {
        let now = self.now.boot;
        self.changes.retain(|at| now.since(*at).as_millis() < u128::from(CHANGES_WINDOW_MS));
        self.changes.push(now);
    }

    /// A sample of the current timeline: asks the programme, cuts where clips begin, adds it.
    fn take(&mut self, programme: &mut Programme, sample: Sample) {
        let Some(track) = self.tracks.iter().find(|track| track.id == sample.track).cloned() else {
            return;
        };
        let now = self.now;
        if sample.data.len() > self.parts().settings.sample_bytes_max {
            self.gap(now, 0, "a sample larger than any that is kept");
            return;
        }
        let position = self.media_clock.advance(&sample, &track);
        let key = sample.key && (track.is_video() || !has_video(&self.tracks));
        let (media_ms, audio_gap) = (position.media_ms, position.audio_gap);
        let boundary = Boundary { key, media_ms, audio_gap, ..self.change };
        self.change = Boundary::default();
        let Steps { kept, begins, without_key, .. } = programme.step(&boundary, self.share_bytes());
        if without_key {
            warn!("no key frame came for too long, the file begins without one");
        }
        let anew = boundary.new_params || boundary.new_timeline || self.fragmenter.is_none();
        let due = self.fragmenter.as_ref().is_some_and(|open| open.is_due(&sample, key, now.boot));
        if anew || !begins.is_empty() || due || !kept {
            self.cut(programme);
        }
        begins.into_iter().for_each(|(id, formats)| owe(&mut self.owed, id, formats));
        if !kept {
            self.whole_since = FragmentSequence(self.sequence.0.saturating_add(1));
            if anew {
                // The segment begins with the first sample that is kept.
                self.fragmenter = None;
                self.change.new_timeline = boundary.new_timeline;
                self.change.new_params = boundary.new_params;
            }
            return;
        }
        if anew {
            self.begin_segment(boundary.new_params || boundary.new_timeline);
        }
        if self.whole_since > self.sequence {
            self.whole_since = self.sequence;
        }
        self.last_kept = Some(now);
        let end_ms = self.media_clock.end_ms();
        let owed = &self.owed;
        let fragmenter = self.fragmenter.as_mut().expect("begun above");
        fragmenter.add(sample, &track, now, position.media_ms, end_ms, || {
            seal_recordings(programme, owed)
        });
    }

    /// What the growing clip of one format may pin: this stream's share of what all may.
    fn share_bytes(&self) -> u64 {
        let parts = self.parts.as_ref().expect("only `end` takes the parts");
        parts.settings.clips_bytes_max / parts.live.count().max(1) as u64
    }

    fn begin_segment(&mut self, discontinuity: bool) {
        let segment = SegmentStart {
            session: self.parts().session.clone(),
            number: self.segments,
            discontinuity: discontinuity && self.segments > 0,
            tracks: self.tracks.clone(),
            origins: self.origins.clone(),
            script_data: self.script_data.clone(),
            init: init_segment(&self.tracks).into(),
        };
        self.segments += 1;
        let target = self.parts().settings.fragment_bytes_target;
        self.fragmenter = Some(Fragmenter::new(Arc::new(segment), self.sequence, target));
    }

    /// Ends the fragment that grows and hands it to the writer.
    pub fn cut(&mut self, programme: &mut Programme) {
        self.tell_over();
        let Some(fragmenter) = &mut self.fragmenter else { return };
        let Some(fragment) = fragmenter.cut() else { return };
        self.sequence = fragmenter.next_sequence();
        programme.count_bytes(fragment.media_bytes() as u64);
        self.parts().watched.publish(|| LivePiece {
            init: fragment.segment.init.clone(),
            key: fragment.key,
            head: Bytes::copy_from_slice(&fragment.head),
            payload: fragment.payload.clone(),
        });
        let priority = programme.write_priority();
        let lane = &mut self.parts().lane;
        lane.set_priority(priority);
        match lane.push(fragment) {
            Ok(()) => self.owed.clear(),
            Err(fragment) => self.drop_fragment(&fragment),
        }
    }

    /// Time passes, perhaps without a sample: what has come does not wait for more.
    pub fn tick(&mut self, programme: &mut Programme, now: BootTime) {
        if self.fragmenter.as_ref().is_some_and(|open| open.is_old(now)) {
            self.cut(programme);
        }
    }

    /// Recordings are over: the next sample belongs to them no more.
    pub fn end_recordings(&mut self, programme: &mut Programme, over: &[RecordingId]) {
        self.cut(programme);
        self.owed.retain(|(id, _)| !over.contains(id));
        self.over.extend_from_slice(over);
        self.tell_over();
    }

    fn tell_over(&mut self) {
        let over = std::mem::take(&mut self.over);
        if !over.is_empty() && self.parts().lane.end_recordings(&over).is_err() {
            // The lane is full; it is said before anything else gets through.
            self.over = over;
        }
    }

    /// The lane is full: flash does not keep up. What begins with the fragment begins with the
    /// next one.
    fn drop_fragment(&mut self, fragment: &Fragment) {
        self.dropped += 1;
        if self.dropped.is_power_of_two() {
            warn!(dropped = self.dropped, "flash does not keep up, whole fragments are dropped");
        }
        let media_ms = fragment.media_end_ms - fragment.media_start_ms;
        self.gap(fragment.first_arrival, media_ms, "flash did not keep up");
    }

    fn gap(&mut self, from: Instant, media_ms: i64, cause: &'static str) {
        let session = self.parts().session.clone();
        self.parts().catalog.post(move |state| {
            if let Err(error) = state.enter_gap(&session, from, media_ms, cause) {
                tracing::error!(%error, "a gap could not be entered into the ledger");
            }
        });
    }

    /// Whole fragments that flash could not take.
    #[must_use]
    pub fn dropped_fragments(&self) -> u64 {
        self.dropped
    }

    /// Passes on what is still held, before the programme is told that the session ends.
    pub fn flush(&mut self, programme: &mut Programme, now: Instant) {
        self.now = now;
        self.through_gate(programme, |gate, pass| gate.flush(pass));
        self.cut(programme);
    }

    /// Ends the session: what waits is handed to the writer, then the lane is given back.
    pub fn end(mut self, programme: &mut Programme, cause: &str, ended: Ended, now: Instant) {
        self.now = now;
        self.cut(programme);
        self.close(cause, ended);
    }

    fn close(&mut self, cause: &str, ended: Ended) {
        let Some(parts) = self.parts.take() else { return };
        info!(%cause, dropped_fragments = self.dropped, "session ends");
        let mut recordings = std::mem::take(&mut self.over);
        recordings.extend(ended.over);
        parts.lane.end(SessionEnd {
            session: parts.session,
            ended: self.now,
            cause: cause.to_owned(),
            recordings,
            paused: ended.paused,
            interrupted: ended.interrupted,
        });
    }

    /// The full set of tracks, before the first sample and whenever it changes.
    /// A track whose configuration is longer than any is left out.
    pub fn tracks(&mut self, programme: &mut Programme, tracks: &[Track]) {
        let fits = |track: &&Track| {
            let fits = track.config.len() <= CODEC_CONFIG_BYTES_MAX;
            if !fits {
                warn!(codec = track.codec.name(), "a codec configuration is too long");
            }
            fits
        };
        let tracks: Vec<Track> = tracks.iter().filter(fits).take(TRACKS_MAX).cloned().collect();
        if *self.tracks == *tracks {
            return;
        }
        self.through_gate(programme, |gate, pass| gate.flush(pass));
        self.gate.set_tracks(tracks.iter().map(|track| (track.id, track.timescale)));
        if !self.tracks.is_empty() {
            self.change.new_params = true;
            self.note_change();
        }
        let codecs: Vec<&str> = tracks.iter().map(|track| track.codec.name()).collect();
        info!(?codecs, "tracks");
        self.tracks = tracks.into();
    }

    /// Raw time of the source at media time 0 of a track.
    pub fn origin(&mut self, track: TrackId, raw: i64) {
        self.origins.retain(|(known, _)| *known != track);
        self.origins.push((track, raw));
    }

    /// Script data as the encoder sent it; too long data is not kept.
    pub fn script_data(&mut self, body: Bytes) {
        if body.len() <= SCRIPT_DATA_BYTES_MAX {
            self.script_data = body;
        }
    }

    /// Takes a sample that arrived at `now`.
    ///
    /// # Errors
    /// The stream is unusable; the caller ends it.
    pub fn sample(
        &mut self,
        programme: &mut Programme,
        sample: Sample,
        now: Instant,
    ) -> Result<(), SessionFault> {
        self.now = now;
        self.through_gate(programme, |gate, pass| gate.push(sample, pass));
        if self.changes.len() > CHANGES_MAX {
            return Err(SessionFault::ChangesAllTheTime);
        }
        Ok(())
    }
}

/// What was not ended in order is over with all that it fed.
impl Drop for RecordedSession {
    fn drop(&mut self) {
        self.close("the stream's task ended without a word", Ended::default());
    }
}

/// What the fragment that begins now belongs to.
fn seal_recordings(programme: &Programme, owed: &[(RecordingId, FormatSet)]) -> SealRecordings {
    let mut all = SealRecordings::new();
    for recording in programme.on() {
        let formats = recording.open_formats();
        if !formats.is_empty() {
            let id = recording.plan().id;
            let owed = owed.iter().find(|(owed, _)| *owed == id);
            let begins = owed.map_or(FormatSet::EMPTY, |(_, begins)| *begins);
            // More recordings than a seal holds are never started.
            let _ = all.push(SealRecording { recording: id, formats, begins });
        }
    }
    all
}

fn owe(owed: &mut Vec<(RecordingId, FormatSet)>, id: RecordingId, begins: FormatSet) {
    match owed.iter_mut().find(|(known, _)| *known == id) {
        Some((_, formats)) => *formats = formats.or(begins),
        None => owed.push((id, begins)),
    }
}
