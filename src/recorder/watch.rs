//! Watches the stream of a stage and its recordings for what events 321 and 341 tell, and has it
//! told.

use tracing::error;

use crate::domain::files::{FileFormat, FormatSet};
use crate::domain::ids::RecordingId;
use crate::domain::programme::Programme;
use crate::domain::record_watch::{RecordFinding, RecordTrouble, RecordWatch};
use crate::domain::sample::{Sample, Shape, Track};
use crate::domain::stream_key::StreamKey;
use crate::domain::stream_watch::{StreamReport, StreamWatch};
use crate::domain::time::Instant;
use crate::ring::catalog::Catalog;
use crate::ring::catalog::pushes::PushId;

/// Watches one stage.
#[derive(Debug, Default)]
pub struct StageWatch {
    stream: StreamWatch,
    /// Width and height of the picture.
    picture: Option<(u16, u16)>,
    tracks_changed: bool,
    records: Vec<(RecordingId, FormatSet, RecordWatch)>,
    /// Fragments that were dropped, as far as they are counted.
    dropped: u64,
}

impl StageWatch {
    /// Another feeder's samples count from here on.
    pub fn begin(&mut self) {
        (self.stream, self.picture, self.tracks_changed) = (StreamWatch::new(), None, true);
    }

    /// The next sample comes with other tracks.
    pub fn tracks_changed(&mut self) {
        self.tracks_changed = true;
    }

    fn tracks(&mut self, programme: &Programme, tracks: &[Track], now: Instant) {
        self.follow(programme);
        for track in tracks {
            self.stream.track(track, now);
            if let Shape::Video { width, height } = track.shape {
                let before = self.picture.replace((width, height));
                if before.is_some_and(|before| before != (width, height)) {
                    self.seen_by_all(RecordTrouble::ResolutionChanged, 1);
                }
            }
        }
        let is_mute = !tracks.is_empty() && tracks.iter().all(Track::is_video);
        if is_mute {
            for (_, formats, watch) in &mut self.records {
                if formats.contains(FileFormat::Aac) {
                    watch.seen(RecordTrouble::NoAudio, 1);
                }
            }
        }
    }

    /// A sample as it arrived.
    pub fn sample(
        &mut self,
        programme: &Programme,
        tracks: &[Track],
        sample: &Sample,
        now: Instant,
    ) {
        if std::mem::take(&mut self.tracks_changed) {
            self.tracks(programme, tracks, now);
        }
        if let Some(track) = tracks.iter().find(|track| track.id == sample.track) {
            self.stream.sample(track, sample, now);
        }
    }

    /// The live session has dropped so many fragments by now.
    pub fn dropped(&mut self, fragments: u64) {
        let more = fragments.saturating_sub(self.dropped);
        self.dropped = fragments;
        if more > 0 {
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            self.seen_by_all(RecordTrouble::DroppedVideo, more);
        }
    }

    /// The stream of the recordings cannot be pulled.
    pub fn pull_failed(&mut self) {
        self.seen_by_all(RecordTrouble::PullFailed, 1);
    }

    /// Time passes: tells what is due.
    pub fn tick(
        &mut self,
        programme: &Programme,
        (key, push): (&StreamKey, Option<PushId>),
        catalog: &Catalog,
        now: Instant,
    ) {
        self.follow(programme);
        if let Some(report) = self.stream.report(now) {
            self.report(push, catalog, report);
        }
        for (id, formats, watch) in &mut self.records {
            while let Some(finding) = watch.due(now.boot) {
                tell_record(catalog, key, (*id, *formats), finding);
            }
        }
        self.records.retain_mut(|(id, formats, watch)| {
            let goes_on = programme.has(*id);
            while !goes_on && let Some(finding) = watch.end() {
                tell_record(catalog, key, (*id, *formats), finding);
            }
            goes_on
        });
    }

    /// The feeder is gone.
    pub fn end(&mut self, programme: &Programme, push: Option<PushId>, catalog: &Catalog) {
        self.follow(programme);
        if let Some(report) = self.stream.end() {
            self.report(push, catalog, report);
        }
        self.dropped = 0;
    }

    fn report(&mut self, push: Option<PushId>, catalog: &Catalog, report: StreamReport) {
        self.records.iter_mut().for_each(|(_, _, watch)| watch.stream(&report));
        let Some(push) = push else { return };
        catalog.post(move |state| {
            if let Err(problem) = state.tell_push_exception(push, report) {
                error!(%problem, "what is wrong with a stream is not told");
            }
        });
    }

    /// Watches the recordings that are on.
    fn follow(&mut self, programme: &Programme) {
        for recording in programme.on() {
            let plan = recording.plan();
            if !self.records.iter().any(|(id, ..)| *id == plan.id) {
                self.records.push((plan.id, plan.formats(), RecordWatch::new()));
            }
        }
    }

    fn seen_by_all(&mut self, kind: RecordTrouble, occurs: u32) {
        self.records.iter_mut().for_each(|(_, _, watch)| watch.seen(kind, occurs));
    }
}

fn tell_record(
    catalog: &Catalog,
    key: &StreamKey,
    of: (RecordingId, FormatSet),
    finding: RecordFinding,
) {
    let key = key.clone();
    catalog.post(move |state| {
        if let Err(problem) = state.tell_record_exception(&key, of, finding) {
            error!(%problem, "what is wrong with a recording is not told");
        }
    });
}
