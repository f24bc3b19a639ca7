//! What a template asks of a file where it is kept, beyond its format: the cloud API's own terms.

use crate::domain::template::FormatParams;
use crate::domain::time::UnixMillis;

/// What is asked of a file at a VOD platform.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MediaTerms {
    /// Its name (MediaName): VodFileName expanded, without an extension.
    pub name: String,
    /// When its recording ended; `None` if the clock was not trusted then.
    pub ended: Option<UnixMillis>,
    /// StorageTime in seconds; 0 is for ever.
    pub storage_time_s: u64,
    /// VodSubAppId.
    pub sub_app_id: Option<i64>,
    /// Procedure; empty is none.
    pub procedure: String,
    /// ClassId; 0 is the default class.
    pub class_id: i64,
}

impl MediaTerms {
    /// Takes what the template says of the file's format.
    #[must_use]
    pub fn with_params(mut self, params: &FormatParams) -> Self {
        self.sub_app_id = params.vod_sub_app_id.filter(|id| *id != 0);
        self.procedure.clone_from(&params.procedure);
        self.class_id = params.class_id;
        self
    }

    /// Until when the file is kept (ExpireTime): StorageTime after the end of its recording, or
    /// after `now` if that end is not known; `None` is for ever.
    #[must_use]
    pub fn kept_until(&self, now: UnixMillis) -> Option<UnixMillis> {
        let kept_ms = i64::try_from(self.storage_time_s).ok()?.checked_mul(1_000)?;
        let from = self.ended.unwrap_or(now);
        (kept_ms > 0).then(|| UnixMillis(from.0.saturating_add(kept_ms)))
    }

    /// Whether its StorageTime is over at `now`, by a clock that is trusted.
    #[must_use]
    pub fn is_over(&self, now: UnixMillis) -> bool {
        self.ended.is_some() && self.kept_until(now).is_some_and(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn storage_time_counts_from_the_end_of_the_recording() {
        let now = UnixMillis(100_000);
        let terms =
            |ended, storage_time_s| MediaTerms { ended, storage_time_s, ..MediaTerms::default() };
        let ended = terms(Some(UnixMillis(40_000)), 60);
        assert_eq!(ended.kept_until(now), Some(UnixMillis(100_000)));
        assert!(ended.is_over(now) && !ended.is_over(UnixMillis(99_999)));
        let unknown = terms(None, 60);
        assert_eq!(unknown.kept_until(now), Some(UnixMillis(160_000)));
        assert!(!unknown.is_over(now), "nobody knows how old it is");
        assert_eq!(terms(Some(now), 0).kept_until(now), None);
        assert_eq!(terms(Some(now), u64::MAX).kept_until(now), None);
    }
}
