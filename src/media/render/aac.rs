//! AAC: the frames of the clip's first AAC track in ADTS framing. ADTS has no time.

use std::sync::Arc;

use crate::domain::sample::{Codec, Track, TrackId};
use crate::media::clip::ClipSource;
use crate::media::codec::aac::{ADTS_FRAME_BYTES_MAX, ADTS_HEADER_BYTES, AacConfig};
use crate::media::fmp4::Moof;
use crate::media::render::flv::fill_payload;
use crate::media::render::merge::{Taken, merged};
use crate::media::render::program::{Programs, dropped, push_once};
use crate::media::render::stream::{
    FragmentSource, Layout, Piece, PieceKind, Pieces, Stream, overlay,
};
use crate::media::render::{Object, RenderError, Rendering};

/// The sound of a clip as ADTS.
pub struct AacRendering {
    stream: Stream<AacLayout>,
    objects: [Object; 1],
    dropped: Vec<String>,
}

impl AacRendering {
    /// Looks at every fragment's `moof` once.
    ///
    /// # Errors
    /// The clip cannot be read or has no AAC track.
    pub fn open(clip: Arc<dyn ClipSource>) -> Result<Self, RenderError> {
        let programs = Programs::new(clip.parts());
        let (mut taken, mut left_out) = (Vec::new(), Vec::new());
        for set in &programs.sets {
            let mut chosen = None;
            for track in set.iter() {
                match adts_config(track) {
                    Some(config) if chosen.is_none() => chosen = Some((track.id, config)),
                    Some(_) => push_once(&mut left_out, dropped(track, "ADTS holds one track")),
                    None => push_once(&mut left_out, dropped(track, "ADTS holds only AAC")),
                }
            }
            taken.push(chosen);
        }
        if taken.iter().all(Option::is_none) {
            return Err(RenderError::NothingToHold { format: "aac" });
        }
        let stream = Stream::open(clip, AacLayout { programs, taken })?;
        let object = Object { name: String::new(), len: stream.len(), content_type: "audio/aac" };
        Ok(AacRendering { stream, objects: [object], dropped: left_out })
    }
}

impl Rendering for AacRendering {
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

/// The configuration of an AAC track if ADTS headers can say it: object types 1 to 4, and a
/// number of channels that has a configuration of its own.
#[must_use]
pub fn adts_config(track: &Track) -> Option<AacConfig> {
    if track.codec != Codec::Aac {
        return None;
    }
    let config = AacConfig::parse(&track.config).ok()?;
    let says = (1..=4).contains(&config.object_type) && matches!(config.channels, 1..=6 | 8);
    says.then_some(config)
}

struct AacLayout {
    programs: Programs,
    /// The track of each set.
    taken: Vec<Option<(TrackId, AacConfig)>>,
}

impl AacLayout {
    fn track_of(&self, fragment: u32) -> Option<(TrackId, AacConfig)> {
        self.taken.get(self.programs.set_of(fragment)).copied().flatten()
    }
}

impl Layout for AacLayout {
    type State = ();

    fn lay_out(&self, fragment: u32, moof: &Moof, (): &mut (), pieces: &mut Pieces) {
        let Some((taken, _)) = self.track_of(fragment) else { return };
        let samples =
            merged(moof, 1, |id| (id == taken).then_some(Taken { id, timescale: 1, slot: 0 }));
        // No AAC frame is longer than the length field can say.
        for sample in samples.into_iter().filter(|s| s.size as usize <= ADTS_FRAME_BYTES_MAX) {
            let len = ADTS_HEADER_BYTES as u64 + u64::from(sample.size);
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
        let PieceKind::Sample(sample) = piece.kind else { return Ok(()) };
        let Some((_, config)) = self.track_of(source.fragment) else { return Ok(()) };
        overlay(&config.adts_header(sample.size as usize), 0, skip, buf);
        fill_payload(source, &sample, ADTS_HEADER_BYTES as u64, skip, buf)
    }
}
