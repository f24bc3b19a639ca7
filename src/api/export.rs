//! An export: media of the ring in a format, opened once and read piece by piece.

use std::sync::Arc;

use crate::api::ApiError;
use crate::api::report::{ExportHeader, ExportObject};
use crate::api::request::{ExportOrder, Subject};
use crate::domain::files::FileFormat;
use crate::media::audio_only::as_shown;
use crate::media::clip::ClipSource;
use crate::media::render::{self, Rendering};
use crate::ring::handle::Ring;

/// Bytes that are read at once.
pub const PIECE_BYTES: usize = 256 << 10;

/// An open export. Its slots are not reused while it lives.
pub struct Export {
    format: FileFormat,
    rendering: Box<dyn Rendering>,
}

impl Export {
    /// Opens what was ordered. Blocks on flash.
    ///
    /// # Errors
    /// The media is gone or damaged, or the format holds none of it.
    pub fn open(ring: &Ring, order: &ExportOrder) -> Result<Self, ApiError> {
        let (clip, own): (Arc<dyn ClipSource>, _) = match &order.subject {
            Subject::File(id) => {
                let id = *id;
                let record = ring.catalog.call_blocking(move |state| state.file(id))?;
                let clip = Arc::new(ring.open_file_clip(id)?);
                (as_shown(clip, record.audio_only), Some(record.format))
            }
            Subject::Range { key, from_ms, until_ms } => {
                (Arc::new(ring.open_range_clip(key, *from_ms, *until_ms)?), None)
            }
        };
        let format = order.format.or(own);
        let format =
            format.ok_or_else(|| ApiError::BadRequest("a range needs a format".to_owned()))?;
        let rendering = render::open(format, clip)?;
        Ok(Export { format, rendering })
    }

    /// What it consists of.
    #[must_use]
    pub fn header(&self) -> ExportHeader {
        let objects = self.rendering.objects().iter();
        ExportHeader {
            format: self.format.name().to_owned(),
            objects: objects
                .map(|object| ExportObject { name: object.name.clone(), bytes: object.len })
                .collect(),
            dropped_tracks: self.rendering.dropped_tracks().to_vec(),
        }
    }

    /// Gives all bytes of all objects in order to `take`, until that has enough. Blocks on flash.
    ///
    /// # Errors
    /// The media cannot be read any more.
    pub fn read<E: From<ApiError>>(
        &self,
        mut take: impl FnMut(Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        for (index, object) in self.rendering.objects().iter().enumerate() {
            let mut offset = 0;
            while offset < object.len {
                let left = usize::try_from(object.len - offset).unwrap_or(usize::MAX);
                let mut piece = vec![0; left.min(PIECE_BYTES)];
                self.rendering.read_at(index, offset, &mut piece).map_err(ApiError::from)?;
                offset += piece.len() as u64;
                take(piece)?;
            }
        }
        Ok(())
    }
}
