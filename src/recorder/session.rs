//! One session at work: from samples to fragments on the stream's lane.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tracing::{info, warn};

use crate::domain::files::{FileFormat, FormatSet};
use crate::domain::ids::{FragmentSequence, RecordingId};
use crate::domain::limits::{CODEC_CONFIG_BYTES_MAX, SCRIPT_DATA_BYTES_MAX, TRACKS_MAX};
use crate::domain::matching::Decision;
use crate::domain::recording::{Boundary, Recording};
use crate::domain::sample::{Sample, Track, TrackId};
use crate::domain::time::{BootTime, Instant};
use crate::domain::timeline::{Passed, TimelineGate};
use crate::media::fmp4::init_segment;
use crate::recorder::RecorderSettings;
use crate::recorder::fragmenter::{Fragmenter, has_video};
use crate::recorder::live::LiveEntry;
use crate::recorder::media_clock::MediaClock;
use crate::recorder::paused::{Paused, PausedTable};
use crate::ring::catalog::Catalog;
use crate::ring::fragment::{Fragment, SegmentStart, SessionStart};
use crate::ring::lane::{SessionEnd, StreamLane};
use crate::ring::layout::{SealRecording, SealRecordings};

/// More new timelines and new parameters than this within [`CHANGES_WINDOW_MS`] end the session:
/// each costs a new segment on flash, and new files.
const CHANGES_MAX: usize = 30;
/// See [`CHANGES_MAX`], in milliseconds.
const CHANGES_WINDOW_MS: u64 = 10_000;

/// What a [`RecordedSession`] is made of.
pub struct SessionParts {
    /// The session.
    pub session: Arc<SessionStart>,
    /// Recordings that it feeds; may be empty if the ring keeps everything.
    pub recordings: Vec<Recording>,
    /// Its way to the writer.
    pub lane: StreamLane,
    /// For the gap ledger.
    pub catalog: Catalog,
    /// Its entry in the table of live streams.
    pub entry: LiveEntry,
    /// Where its recordings wait if the stream may come back.
    pub paused: Arc<PausedTable>,
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
    /// Bytes of the growing clip of each format.
    clip_bytes: [u64; 4],
    now: Instant,
    dropped: u64,
}

impl RecordedSession {
    /// A stream at its start.
    #[must_use]
    pub fn new(parts: SessionParts) -> Self {
        let first = Boundary { first: true, ..Boundary::default() };
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
            change: first,
            owed: Vec::new(),
            changes: Vec::new(),
            clip_bytes: [0; 4],
            now,
            dropped: 0,
        }
    }

    fn parts(&mut self) -> &mut SessionParts {
        self.parts.as_mut().expect("only `finish` takes the parts")
    }

    /// Passes the samples that the gate lets through, in order.
    fn through_gate(&mut self, push: impl FnOnce(&mut TimelineGate, &mut dyn FnMut(Passed))) {
        let mut gate = std::mem::take(&mut self.gate);
        push(&mut gate, &mut |passed| match passed {
            Passed::NewTimeline => self.new_timeline(),
            Passed::Sample(sample) => self.take(sample),
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

    /// A sample of the current timeline: asks the recordings, cuts where they begin, adds it.
    fn take(&mut self, sample: Sample) {
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
        let boundary = Boundary {
            key,
            media_ms: position.media_ms,
            audio_gap: position.audio_gap,
            full: if key { self.full_clips() } else { FormatSet::EMPTY },
            ..self.change
        };
        self.change = Boundary::default();
        let (wanted, begins) = self.ask_recordings(&boundary);
        let begin_here = !begins.is_empty();
        let anew = boundary.new_params || boundary.new_timeline || self.fragmenter.is_none();
        let due = self.fragmenter.as_ref().is_some_and(|open| open.is_due(&sample, key, now.boot));
        if anew || begin_here || due || !wanted {
            self.cut();
        }
        for (id, formats) in begins {
            formats.iter().for_each(|format| self.clip_bytes[format as usize] = 0);
            owe(&mut self.owed, id, formats);
        }
        if !wanted {
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
        let end_ms = self.media_clock.end_ms();
        let recordings = self.seal_recordings();
        let fragmenter = self.fragmenter.as_mut().expect("begun above");
        fragmenter.add(sample, &track, now, position.media_ms, end_ms, || recordings);
    }

    /// Formats whose clip pins this stream's share of what clips may pin.
    fn full_clips(&self) -> FormatSet {
        let parts = self.parts.as_ref().expect("only `finish` takes the parts");
        let share = parts.settings.clips_bytes_max / parts.entry.live_count() as u64;
        let full = |format: &FileFormat| self.clip_bytes[*format as usize] >= share;
        FileFormat::ALL.into_iter().filter(full).collect()
    }

    /// Whether the sample after the boundary is kept, and which files begin with it.
    fn ask_recordings(&mut self, boundary: &Boundary) -> (bool, Vec<(RecordingId, FormatSet)>) {
        let parts = self.parts.as_mut().expect("only `finish` takes the parts");
        let mut wanted = parts.settings.keep_all;
        let mut begins = Vec::new();
        for recording in &mut parts.recordings {
            let step = recording.step(boundary);
            wanted |= step.recorded;
            if step.without_key {
                warn!("no key frame came for too long, the file begins without one");
            }
            if !step.begins.is_empty() {
                begins.push((recording.plan().id, step.begins));
            }
        }
        (wanted, begins)
    }

    /// What the fragment that begins now belongs to.
    fn seal_recordings(&self) -> SealRecordings {
        let parts = self.parts.as_ref().expect("only `finish` takes the parts");
        let mut all = SealRecordings::new();
        for recording in &parts.recordings {
            let formats = recording.open_formats();
            if !formats.is_empty() {
                let id = recording.plan().id;
                let owed = self.owed.iter().find(|(owed, _)| *owed == id);
                let begins = owed.map_or(FormatSet::EMPTY, |(_, begins)| *begins);
                // More recordings than a seal holds are never started.
                let _ = all.push(SealRecording { recording: id, formats, begins });
            }
        }
        all
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
    fn cut(&mut self) {
        let Some(fragmenter) = &mut self.fragmenter else { return };
        let Some(fragment) = fragmenter.cut() else { return };
        self.sequence = fragmenter.next_sequence();
        let bytes = fragment.media_bytes() as u64;
        self.clip_bytes.iter_mut().for_each(|clip| *clip += bytes);
        match self.parts().lane.push(fragment) {
            Ok(()) => self.owed.clear(),
            Err(fragment) => self.drop_fragment(&fragment),
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

    /// What the rules said when the session began.
    ///
    /// # Panics
    /// Never: the parts leave with the session.
    #[must_use]
    pub fn decision(&self) -> &Decision {
        self.parts.as_ref().expect("only `finish` takes the parts").entry.decision()
    }

    /// Whole fragments that flash could not take.
    #[must_use]
    pub fn dropped_fragments(&self) -> u64 {
        self.dropped
    }

    /// Ends the session: what waits is handed to the writer, then the lane is given back.
    /// Recordings whose template says so wait for the stream to come back.
    pub fn end(mut self, cause: &str, now: Instant) {
        self.now = now;
        self.finish(cause, true);
    }

    /// Ends the session and its recordings, whatever their template says.
    pub fn end_for_good(mut self, cause: &str, now: Instant) {
        self.now = now;
        self.finish(cause, false);
    }

    fn finish(&mut self, cause: &str, may_return: bool) {
        if self.parts.is_none() {
            return;
        }
        self.through_gate(|gate, pass| gate.flush(pass));
        self.cut();
        let Some(mut parts) = self.parts.take() else { return };
        info!(%cause, dropped_fragments = self.dropped, "session ends");
        let mut end = SessionEnd {
            session: parts.session.clone(),
            ended: self.now,
            cause: cause.to_owned(),
            recordings: Vec::new(),
            paused: Vec::new(),
        };
        for recording in std::mem::take(&mut parts.recordings) {
            match splice_window(&parts, &recording) {
                Some(window) if may_return => pause(&parts, recording, window, &mut end),
                _ => end.recordings.push(recording.plan().id),
            }
        }
        drop(parts.entry);
        parts.lane.end(end);
    }

    /// The full set of tracks, before the first sample and whenever it changes.
    /// A track whose configuration is longer than any is left out.
    pub fn tracks(&mut self, tracks: &[Track]) {
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
        self.through_gate(|gate, pass| gate.flush(pass));
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
    pub fn sample(&mut self, sample: Sample, now: Instant) -> Result<(), SessionFault> {
        self.now = now;
        self.through_gate(|gate, pass| gate.push(sample, pass));
        if self.changes.len() > CHANGES_MAX {
            return Err(SessionFault::ChangesAllTheTime);
        }
        Ok(())
    }
}

/// A panic in the stream's task still ends the session in order.
impl Drop for RecordedSession {
    fn drop(&mut self) {
        self.finish("the stream's task ended without a word", true);
    }
}

/// How long a recording of the session waits for its stream; `None`: not at all.
fn splice_window(parts: &SessionParts, recording: &Recording) -> Option<Duration> {
    let window_s = parts.entry.decision().template()?.flow_continue_s;
    (window_s > 0 && !recording.open_formats().is_empty())
        .then(|| Duration::from_secs(u64::from(window_s)))
}

fn pause(parts: &SessionParts, recording: Recording, window: Duration, end: &mut SessionEnd) {
    end.paused.push(recording.plan().id);
    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    let until = BootTime(end.ended.boot.0.saturating_add(window_ms));
    let decision = parts.entry.decision().clone();
    let paused = Paused { recording, decision, until };
    parts.paused.pause(parts.session.key.clone(), paused, end.ended.boot);
}

fn owe(owed: &mut Vec<(RecordingId, FormatSet)>, id: RecordingId, begins: FormatSet) {
    match owed.iter_mut().find(|(known, _)| *known == id) {
        Some((_, formats)) => *formats = formats.or(begins),
        None => owed.push((id, begins)),
    }
}
