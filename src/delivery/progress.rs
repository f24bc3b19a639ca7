//! How far a transfer has come, in a form that survives a power cut.
//!
//! Invariants: an object is counted in `objects_done` only after the target has proved that it
//! holds it; a part is listed only after the target has acknowledged it; the saved checksums
//! cover exactly what is listed.

use serde::{Deserialize, Serialize};

use crate::delivery::checksum::RunningSha256;
use crate::delivery::vod::VodSession;

/// How far a transfer has come. Belongs to one file at one place of one target: anything else
/// starts over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The target and the path at it.
    pub place: String,
    /// Objects that the target holds for certain.
    pub objects_done: usize,
    /// State of the checksum over these objects.
    pub file_sha256: String,
    /// The session at a VOD platform that all of this is in, if one is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<VodSession>,
    /// The multipart upload of the object after them, if one has begun.
    pub multipart: Option<MultipartProgress>,
    /// Media of the same name that an unfinished search for this file has looked at.
    #[serde(default)]
    pub searched: u64,
}

/// A multipart upload under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MultipartProgress {
    /// The store's name for it.
    pub upload_id: String,
    /// Bytes of the object, to notice if it is no longer the same.
    pub object_bytes: u64,
    /// Bytes of every part but the last.
    pub part_bytes: u64,
    /// ETags of the parts that the store has, from part 1, as it gave them.
    pub etags: Vec<String>,
    /// MD5 of the last of these parts, to notice if the object is no longer the same.
    pub last_part_md5: String,
    /// The store's ETags are no MD5s: the object is read back at the end instead.
    pub etags_opaque: bool,
    /// State of the checksum over the file up to the last listed part.
    pub file_sha256: String,
    /// State of the checksum over the object up to the last listed part.
    pub object_sha256: String,
    /// CRC-64 of the object up to the last listed part.
    pub object_crc64: u64,
}

impl Progress {
    /// Nothing done yet.
    #[must_use]
    pub fn begin(place: &str) -> Self {
        Progress {
            place: place.to_owned(),
            objects_done: 0,
            file_sha256: RunningSha256::default().save(),
            session: None,
            multipart: None,
            searched: 0,
        }
    }

    /// This progress if it belongs to `place` and makes sense for `objects` objects, else none.
    #[must_use]
    pub fn or_begin(self, place: &str, objects: usize) -> Self {
        let usable = self.place == place
            && self.objects_done <= objects
            && RunningSha256::restore(&self.file_sha256).is_some();
        if usable { self } else { Progress::begin(place) }
    }

    /// Whether nothing has been done yet.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        self.objects_done == 0 && self.session.is_none() && self.multipart.is_none()
    }

    /// The checksum over the objects that are done.
    #[must_use]
    pub fn file_sum(&self) -> RunningSha256 {
        RunningSha256::restore(&self.file_sha256).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_of_another_place_or_file_starts_over() {
        let mut progress = Progress::begin("s3://b/x");
        progress.objects_done = 3;
        assert_eq!(progress.clone().or_begin("s3://b/x", 3), progress);
        assert_eq!(progress.clone().or_begin("s3://c/x", 3), Progress::begin("s3://c/x"));
        assert_eq!(progress.clone().or_begin("s3://b/x", 2), Progress::begin("s3://b/x"));
        progress.file_sha256.pop();
        assert_eq!(progress.or_begin("s3://b/x", 3), Progress::begin("s3://b/x"));
    }
}
