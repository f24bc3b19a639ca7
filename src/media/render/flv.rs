//! FLV: the source's script data, configuration tags, then samples with their own times.
//!
//! Times are source time in milliseconds modulo 2^32, rounded once per sample. Where the codec
//! configuration changes, new configuration tags come first.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::limits::SAMPLE_BYTES_MAX;
use crate::domain::sample::Track;
use crate::media::clip::ClipSource;
use crate::media::flv::mux::{
    BACK_POINTER_BYTES, BODY_BYTES_MAX, BODY_HEAD_BYTES_MAX, TAG_HEADER_BYTES, TAG_SCRIPT,
    back_pointer, can_hold, file_header, minimal_script_data, sample_head, tag_header, tag_type,
    write_tag,
};
use crate::media::flv::tag::{HevcForm, config_head};
use crate::media::fmp4::Moof;
use crate::media::render::merge::{Taken, merged};
use crate::media::render::program::{Programs, dropped, push_once};
use crate::media::render::stream::{
    FragmentSource, Layout, Piece, PieceKind, Pieces, PlacedSample, Stream, overlay,
};
use crate::media::render::{Object, RenderError, Rendering};

/// Ticks a second of FLV.
const TIMESCALE: u32 = 1_000;

const _: () = assert!((SAMPLE_BYTES_MAX + BODY_HEAD_BYTES_MAX) as u64 <= BODY_BYTES_MAX);

/// A clip as FLV.
pub struct FlvRendering {
    stream: Stream<FlvLayout>,
    objects: [Object; 1],
    dropped: Vec<String>,
}

impl FlvRendering {
    /// Looks at every fragment's `moof` once.
    ///
    /// # Errors
    /// The clip cannot be read or has no track for FLV.
    pub fn open(clip: Arc<dyn ClipSource>) -> Result<Self, RenderError> {
        let (layout, dropped) = FlvLayout::new(&*clip)?;
        let stream = Stream::open(clip, layout)?;
        let object = Object { name: String::new(), len: stream.len(), content_type: "video/x-flv" };
        Ok(FlvRendering { stream, objects: [object], dropped })
    }
}

impl Rendering for FlvRendering {
    fn objects(&self) -> &[Object] {
        &self.objects
    }

    fn read_at(&self, _object: usize, offset: u64, buf: &mut [u8]) -> Result<(), RenderError> {
        self.stream.read_at(offset, buf)
    }

    fn dropped_tracks(&self) -> &[String] {
        &self.dropped
    }
}

struct FlvLayout {
    programs: Programs,
    /// Per set of tracks: the ones taken, by place in the set.
    taken: Vec<Vec<usize>>,
    script_data: Bytes,
    /// Whether any part has sound, pictures.
    flags: (bool, bool),
}

impl FlvLayout {
    fn new(clip: &dyn ClipSource) -> Result<(Self, Vec<String>), RenderError> {
        let programs = Programs::new(clip.parts());
        let (mut taken, mut left_out, mut flags) = (Vec::new(), Vec::new(), (false, false));
        for set in &programs.sets {
            let mut places: Vec<usize> = Vec::with_capacity(2);
            for (place, track) in set.iter().enumerate() {
                let kind_taken = places.iter().any(|at| set[*at].is_video() == track.is_video());
                if !can_hold(track) {
                    push_once(&mut left_out, dropped(track, "FLV has no form for it"));
                } else if kind_taken {
                    push_once(&mut left_out, dropped(track, "FLV holds one track of a kind"));
                } else {
                    flags.0 |= !track.is_video();
                    flags.1 |= track.is_video();
                    places.push(place);
                }
            }
            taken.push(places);
        }
        if flags == (false, false) {
            return Err(RenderError::NothingToHold { format: "flv" });
        }
        let mut script_data =
            clip.parts().first().map(|part| part.script_data.clone()).unwrap_or_default();
        if script_data.is_empty() {
            let first = programs.sets.iter().zip(&taken).find(|(_, places)| !places.is_empty());
            let tracks = first.iter().flat_map(|(set, places)| places.iter().map(|at| &set[*at]));
            script_data = minimal_script_data(tracks).into();
        }
        Ok((FlvLayout { programs, taken, script_data, flags }, left_out))
    }

    fn tracks_of(&self, fragment: u32) -> impl Iterator<Item = &Track> {
        let set = self.programs.set_of(fragment);
        let places = self.taken.get(set).map_or(&[][..], Vec::as_slice);
        places.iter().map(move |at| &self.programs.sets[set][*at])
    }

    /// What stands before the samples of a fragment.
    fn head(&self, fragment: u32, time_ms: i64) -> Vec<u8> {
        let mut out = Vec::new();
        if fragment == 0 {
            out.extend_from_slice(&file_header(self.flags.0, self.flags.1));
            write_tag(&mut out, TAG_SCRIPT, 0, &[&self.script_data]);
        }
        for track in self.tracks_of(fragment) {
            if let Some(head) = config_head(track.codec, HevcForm::Enhanced) {
                write_tag(&mut out, tag_type(track), time_ms, &[&head, &track.config]);
            }
        }
        out
    }

    fn has_head(&self, fragment: u32) -> bool {
        let part = self.programs.part_of(fragment);
        fragment == 0 || part.is_some_and(|(part, first)| first && part.changed)
    }

    /// Header bytes of a sample's tag, body header included, and the length of the body.
    fn tag_start(track: &Track, sample: &PlacedSample) -> ([u8; 19], usize, u32) {
        let composition_ms = sample.pts.saturating_sub(sample.dts);
        let head = sample_head(track, sample.key, composition_ms);
        let body_len = sample.size.saturating_add(head.len() as u32);
        let start_len = TAG_HEADER_BYTES + head.len();
        let mut out = [0; TAG_HEADER_BYTES + BODY_HEAD_BYTES_MAX];
        let header = tag_header(tag_type(track), body_len, sample.dts);
        out[..TAG_HEADER_BYTES].copy_from_slice(&header);
        out[TAG_HEADER_BYTES..start_len].copy_from_slice(&head);
        (out, start_len, body_len)
    }
}

impl Layout for FlvLayout {
    type State = ();

    fn lay_out(&self, fragment: u32, moof: &Moof, (): &mut (), pieces: &mut Pieces) {
        let samples = merged(moof, TIMESCALE, |id| {
            let (slot, track) = self.tracks_of(fragment).enumerate().find(|(_, t)| t.id == id)?;
            Some(Taken { id, timescale: track.timescale, slot: slot as u8 })
        });
        if self.has_head(fragment) {
            let time = samples.first().map_or(0, |sample| sample.dts);
            // Time changes no length.
            let len = self.head(fragment, time).len() as u64;
            pieces.push(len, PieceKind::Head { time, counter: 0 });
        }
        for sample in samples {
            let Some(track) = self.tracks_of(fragment).nth(usize::from(sample.slot)) else {
                continue;
            };
            let (_, start, body_len) = Self::tag_start(track, &sample);
            if u64::from(body_len) > BODY_BYTES_MAX {
                continue; // The recorder takes no sample that long.
            }
            let len = start as u64 + u64::from(sample.size) + BACK_POINTER_BYTES as u64;
            pieces.push(len, PieceKind::Sample(sample));
        }
    }

    fn fill(
        &self,
        source: &mut FragmentSource,
        piece: &Piece,
        skip: u64,
        buf: &mut [u8],
    ) -> Result<(), RenderError> {
        match piece.kind {
            PieceKind::Head { time, .. } => {
                overlay(&self.head(source.fragment, time), 0, skip, buf);
            }
            PieceKind::Sample(sample) => {
                let slot = usize::from(sample.slot);
                let Some(track) = self.tracks_of(source.fragment).nth(slot) else {
                    return Ok(());
                };
                let (start, start_len, body_len) = Self::tag_start(track, &sample);
                overlay(&start[..start_len], 0, skip, buf);
                fill_payload(source, &sample, start_len as u64, skip, buf)?;
                let end = start_len as u64 + u64::from(sample.size);
                overlay(&back_pointer(body_len), end, skip, buf);
            }
            PieceKind::Payload => {}
        }
        Ok(())
    }
}

/// Fills the part of `buf` that shows a sample's bytes: they stand at `known_start` of the piece,
/// `buf` shows the piece from `skip`.
pub(super) fn fill_payload(
    source: &mut FragmentSource,
    sample: &PlacedSample,
    known_start: u64,
    skip: u64,
    buf: &mut [u8],
) -> Result<(), RenderError> {
    let from = known_start.max(skip);
    let to = (known_start + u64::from(sample.size)).min(skip + buf.len() as u64);
    if from < to {
        let target = &mut buf[(from - skip) as usize..(to - skip) as usize];
        source.read(sample.offset + from - known_start, target)?;
    }
    Ok(())
}
