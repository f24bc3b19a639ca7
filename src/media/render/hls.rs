//! HLS: segments of whole fragments, and a VOD playlist.
//!
//! MPEG-TS where every track of the clip fits, else fragmented MP4 with the fragments as they
//! are on flash. All segments together are one [`Stream`]; an object is a stretch of it.

use std::sync::Arc;

use crate::domain::sample::Track;
use crate::domain::time::rescale;
use crate::media::clip::ClipSource;
use crate::media::fmp4::{Moof, Run, init_segment};
use crate::media::hls::cutter::{Cutter, FragmentTimes};
use crate::media::hls::playlist::Playlist;
use crate::media::render::program::Programs;
use crate::media::render::stream::{
    FragmentSource, INDEX_BYTES_MAX, Layout, Piece, PieceKind, Pieces, Stream, StreamBuilder,
    overlay, read_moof,
};
use crate::media::render::ts::{TsLayout, TsProgram};
use crate::media::render::{Object, RenderError, Rendering};

const MICROS: u32 = 1_000_000;
/// `mdat` header in front of a fragment's payload.
const MDAT_HEADER_BYTES: u64 = 8;
/// Name of the playlist, the last object.
pub const PLAYLIST_NAME: &str = "index.m3u8";

/// A clip as HLS.
pub struct HlsRendering {
    media: Media,
    /// Init sections, first among the objects; none with MPEG-TS.
    inits: Vec<Vec<u8>>,
    /// Where each segment begins in the stream.
    starts: Vec<u64>,
    playlist: String,
    objects: Vec<Object>,
}

/// The segments, one after the other.
enum Media {
    Ts(Stream<TsLayout>),
    Fmp4(Stream<VerbatimLayout>),
}

impl HlsRendering {
    /// Looks at every fragment's `moof` once.
    ///
    /// # Errors
    /// The clip cannot be read or has no track.
    pub fn open(clip: Arc<dyn ClipSource>) -> Result<Self, RenderError> {
        let programs = Programs::new(clip.parts());
        if programs.sets.iter().all(|set| set.is_empty()) {
            return Err(RenderError::NothingToHold { format: "hls" });
        }
        let ts_programs = programs.sets.iter().map(|set| TsProgram::new(set)).collect();
        match ts_programs {
            Some(ts_programs) => {
                let segment_starts = Vec::new();
                let layout = TsLayout { programs: programs.clone(), ts_programs, segment_starts };
                let (stream, plan) = cut(clip, &programs, "ts", layout, |layout, fragment| {
                    layout.segment_starts.push(fragment);
                })?;
                Ok(plan.finish(Media::Ts(stream), Vec::new(), "ts", "video/mp2t"))
            }
            None => {
                let inits = programs.sets.iter().map(|set| init_segment(set)).collect();
                let (stream, plan) = cut(clip, &programs, "m4s", VerbatimLayout, |_, _| {})?;
                Ok(plan.finish(Media::Fmp4(stream), inits, "m4s", "video/mp4"))
            }
        }
    }
}

impl Rendering for HlsRendering {
    fn objects(&self) -> &[Object] {
        &self.objects
    }

    fn read_at(&self, object: usize, offset: u64, buf: &mut [u8]) -> Result<(), RenderError> {
        if let Some(init) = self.inits.get(object) {
            overlay(init, 0, offset, buf);
            return Ok(());
        }
        match self.starts.get(object - self.inits.len()) {
            Some(start) => match &self.media {
                Media::Ts(stream) => stream.read_at(start + offset, buf),
                Media::Fmp4(stream) => stream.read_at(start + offset, buf),
            },
            None => {
                overlay(self.playlist.as_bytes(), 0, offset, buf);
                Ok(())
            }
        }
    }

    /// Fragmented MP4 holds every track.
    fn dropped_tracks(&self) -> &[String] {
        &[]
    }
}

/// Segments and playlist as they come out of the pass over the clip.
struct Plan {
    starts: Vec<u64>,
    len: u64,
    playlist: Playlist,
}

impl Plan {
    fn finish(
        self,
        media: Media,
        inits: Vec<Vec<u8>>,
        extension: &str,
        content_type: &'static str,
    ) -> HlsRendering {
        let playlist = self.playlist.finish();
        let mut objects = Vec::with_capacity(inits.len() + self.starts.len() + 1);
        for (number, init) in inits.iter().enumerate() {
            let (name, len) = (format!("init-{number}.mp4"), init.len() as u64);
            objects.push(Object { name, len, content_type });
        }
        let ends = self.starts.iter().skip(1).copied().chain([self.len]);
        for (number, (start, end)) in self.starts.iter().zip(ends).enumerate() {
            let name = format!("{number}.{extension}");
            objects.push(Object { name, len: end - start, content_type });
        }
        objects.push(Object {
            name: PLAYLIST_NAME.to_owned(),
            len: playlist.len() as u64,
            content_type: "application/vnd.apple.mpegurl",
        });
        HlsRendering { media, inits, starts: self.starts, playlist, objects }
    }
}

/// The pass over the clip: cuts segments, lays out the stream and writes the playlist.
fn cut<L: Layout>(
    clip: Arc<dyn ClipSource>,
    programs: &Programs,
    extension: &str,
    layout: L,
    begin_segment: impl Fn(&mut L, u32),
) -> Result<(Stream<L>, Plan), RenderError> {
    let mut builder = StreamBuilder::new(Arc::clone(&clip), layout, INDEX_BYTES_MAX);
    let mut cutter = Cutter::default();
    let mut plan = Plan { starts: Vec::new(), len: 0, playlist: Playlist::default() };
    // A segment is named in the playlist when its length is known: when the next one begins.
    let name = |number: usize| format!("{}.{extension}", number.saturating_sub(1));
    for fragment in 0..clip.fragment_count() {
        let (_, moof) = read_moof(&*clip, fragment)?;
        let part = programs.part_of(fragment);
        let begins_part = part.filter(|(_, first)| *first).map(|(part, _)| part);
        let set = part.map_or(&[][..], |(part, _)| &programs.sets[part.set as usize]);
        let changed = begins_part.is_some_and(|part| part.changed);
        let breaks = begins_part.is_some_and(|part| part.changed || part.discontinuity);
        if let Some(before_us) = cutter.next(&times(&moof, set, breaks)) {
            if let Some(before_us) = before_us {
                plan.playlist.segment(&name(plan.starts.len()), before_us);
                if breaks {
                    plan.playlist.discontinuity();
                }
            }
            if let Some(part) = begins_part.filter(|_| changed && extension == "m4s") {
                plan.playlist.map(&format!("init-{}.mp4", part.set));
            }
            begin_segment(&mut builder.layout, fragment);
            plan.starts.push(builder.push(fragment, &moof)?);
        } else {
            builder.push(fragment, &moof)?;
        }
    }
    if let Some(length_us) = cutter.finish() {
        plan.playlist.segment(&name(plan.starts.len()), length_us);
    }
    let stream = builder.finish();
    plan.len = stream.len();
    Ok((stream, plan))
}

/// The times of a fragment: it begins with its first video track, if it has one, and ends with the
/// last of its tracks.
fn times(moof: &Moof, set: &[Track], breaks: bool) -> FragmentTimes {
    let track_of = |run: &Run| set.iter().find(|track| track.id == run.track);
    let video = set.iter().find(|track| track.is_video());
    let video_run = moof.runs.iter().find(|run| video.is_some_and(|track| track.id == run.track));
    let span = |run: &Run| {
        let timescale = track_of(run)?.timescale;
        let first = run.samples.first()?;
        Some((rescale(first.dts, timescale, MICROS), rescale(run.end_dts, timescale, MICROS)))
    };
    let spans = || moof.runs.iter().filter_map(span);
    let start_us = video_run.and_then(span).map(|(start_us, _)| start_us);
    let start_us = start_us.or_else(|| spans().map(|(start_us, _)| start_us).min()).unwrap_or(0);
    let end_us = spans().map(|(_, end_us)| end_us).max().unwrap_or(0);
    let starts_with_key = video_run.and_then(|run| run.samples.first()).map(|first| first.key);
    FragmentTimes { start_us, end_us, starts_with_key, breaks }
}

/// Fragments as on flash: `moof`, then `mdat`.
struct VerbatimLayout;

impl Layout for VerbatimLayout {
    type State = ();

    fn lay_out(&self, _fragment: u32, moof: &Moof, (): &mut (), pieces: &mut Pieces) {
        let head = moof.box_len + MDAT_HEADER_BYTES;
        pieces.push(head, PieceKind::Head { time: 0, counter: 0 });
        pieces.push(moof.payload_len(), PieceKind::Payload);
    }

    fn fill(
        &self,
        source: &mut FragmentSource,
        piece: &Piece,
        skip: u64,
        buf: &mut [u8],
    ) -> Result<(), RenderError> {
        match piece.kind {
            PieceKind::Payload => source.copy(skip, buf)?,
            _ => {
                let moof_len = piece.len - MDAT_HEADER_BYTES;
                overlay(&source.moof, 0, skip, buf);
                let size = u32::try_from(source.payload_len + MDAT_HEADER_BYTES);
                overlay(&size.unwrap_or(u32::MAX).to_be_bytes(), moof_len, skip, buf);
                overlay(b"mdat", moof_len + 4, skip, buf);
            }
        }
        Ok(())
    }
}
