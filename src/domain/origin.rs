//! Tracks of one RTP session on one time axis.
//!
//! Each track counts in its own clock from a random start. Sender reports tie both to the
//! sender's wall clock (RFC 3550, 6.4.1) and are preferred when every track has one and they are
//! plausible; otherwise the zero that the session control gave (`RTP-Info`) is taken as common.
//! The origin of the common axis is the earliest first sample, so that times begin at 0. Each
//! track gets one whole-tick offset, rounded once: times within a track stay exact.

/// A sender's wall clock and RTP clock read at the same instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenderReport {
    /// NTP time: seconds since 1900 in 32.32 fixed point, wrapping.
    pub ntp: u64,
    /// RTP time in ticks, wrap unrolled.
    pub rtp: i64,
}

/// What is known of a track's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackClock {
    /// Ticks a second; never 0.
    pub timescale: u32,
    /// RTP time that session control calls zero.
    pub zero: i64,
    /// The first sender report; `None` if none came or it has no NTP time.
    pub report: Option<SenderReport>,
    /// Decoding time of the earliest sample in RTP time; `None` if no sample came.
    pub first: Option<i64>,
}

/// What the alignment rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Sender reports of all tracks.
    SenderReports,
    /// The zero of session control.
    SessionZero,
}

/// Result of [`align`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alignment {
    /// What it rests on.
    pub basis: Basis,
    /// Per track, in the order given: the RTP time that is 0 on the common axis. A sample's time
    /// is its RTP time minus this.
    pub origins: Vec<i64>,
}

/// Sender reports that put first samples further apart than this are not believed, in seconds.
const PLAUSIBLE_SECONDS: i128 = 10;

/// Puts tracks on a common axis. If a track has no sample yet, the origin lies `headroom_ms`
/// before the earliest sample, so that samples of that track may still come from before it.
#[must_use]
pub fn align(tracks: &[TrackClock], headroom_ms: u32) -> Alignment {
    let headroom = if tracks.iter().any(|track| track.first.is_none()) { headroom_ms } else { 0 };
    if let Some(reports) = reports_of(tracks) {
        let base = reports.first().map_or(0, |report| report.ntp);
        let anchors: Vec<Anchor> = tracks
            .iter()
            .zip(&reports)
            .map(|(track, report)| Anchor {
                timescale: track.timescale,
                rtp: report.rtp,
                // Difference of wrapping clocks.
                fixed: i128::from(report.ntp.wrapping_sub(base) as i64),
            })
            .collect();
        if is_plausible(tracks, &anchors) {
            let origins = origins(tracks, &anchors, headroom);
            return Alignment { basis: Basis::SenderReports, origins };
        }
    }
    let anchors: Vec<Anchor> = tracks
        .iter()
        .map(|track| Anchor { timescale: track.timescale, rtp: track.zero, fixed: 0 })
        .collect();
    Alignment { basis: Basis::SessionZero, origins: origins(tracks, &anchors, headroom) }
}

/// An instant known in a track's RTP time and on the common axis (32.32 fixed point seconds).
#[derive(Debug, Clone, Copy)]
struct Anchor {
    timescale: u32,
    rtp: i64,
    fixed: i128,
}

impl Anchor {
    /// An RTP time on the common axis.
    fn fixed_of(self, rtp: i64) -> i128 {
        let ticks = i128::from(rtp) - i128::from(self.rtp);
        self.fixed + (ticks << 32).div_euclid(i128::from(self.timescale.max(1)))
    }

    /// A time of the common axis in RTP time, rounded half up.
    fn rtp_of(self, fixed: i128) -> i64 {
        let scaled = (fixed - self.fixed) * i128::from(self.timescale.max(1));
        let ticks = (scaled + (1 << 31)) >> 32;
        i64::try_from(i128::from(self.rtp) + ticks).unwrap_or(self.rtp)
    }
}

/// The reports, if every track of several has one.
fn reports_of(tracks: &[TrackClock]) -> Option<Vec<SenderReport>> {
    if tracks.len() < 2 {
        return None;
    }
    tracks.iter().map(|track| track.report).collect()
}

fn is_plausible(tracks: &[TrackClock], anchors: &[Anchor]) -> bool {
    let firsts: Vec<i128> = firsts(tracks, anchors).collect();
    match (firsts.iter().min(), firsts.iter().max()) {
        (Some(low), Some(high)) => high - low <= PLAUSIBLE_SECONDS << 32,
        _ => true,
    }
}

/// First samples on the common axis.
fn firsts<'a>(tracks: &'a [TrackClock], anchors: &'a [Anchor]) -> impl Iterator<Item = i128> + 'a {
    tracks
        .iter()
        .zip(anchors)
        .filter_map(|(track, anchor)| track.first.map(|first| anchor.fixed_of(first)))
}

fn origins(tracks: &[TrackClock], anchors: &[Anchor], headroom_ms: u32) -> Vec<i64> {
    let earliest = firsts(tracks, anchors).min().unwrap_or(0);
    let origin = earliest - (i128::from(headroom_ms) << 32) / 1_000;
    anchors.iter().map(|anchor| anchor.rtp_of(origin)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1 << 32;

    fn video(first: i64) -> TrackClock {
        TrackClock { timescale: 90_000, zero: 1_000, report: None, first: Some(first) }
    }

    fn audio(first: i64) -> TrackClock {
        TrackClock { timescale: 8_000, zero: 70_000, report: None, first: Some(first) }
    }

    #[test]
    fn a_single_track_begins_at_zero() {
        assert_eq!(align(&[video(-106_976)], 1_000).origins, [-106_976]);
    }

    #[test]
    fn without_reports_the_session_zero_is_common() {
        // Video begins half a second after the zero, audio a second before it.
        let aligned = align(&[video(46_000), audio(62_000)], 1_000);
        assert_eq!(aligned.basis, Basis::SessionZero);
        assert_eq!(aligned.origins, [1_000 - 90_000, 62_000]);
    }

    #[test]
    fn sender_reports_go_before_the_session_zero() {
        let ntp = u64::MAX - SECOND / 2;
        let mut tracks = [video(90_000), audio(8_000)];
        tracks[0].report = Some(SenderReport { ntp, rtp: 90_000 });
        // One second later on the sender's clock, past the NTP wrap.
        tracks[1].report = Some(SenderReport { ntp: ntp.wrapping_add(SECOND), rtp: 8_000 });
        let aligned = align(&tracks, 1_000);
        assert_eq!(aligned.basis, Basis::SenderReports);
        assert_eq!(aligned.origins, [90_000, 0]);
    }

    #[test]
    fn one_missing_or_implausible_report_is_not_used() {
        let mut tracks = [video(1_000), audio(70_000)];
        tracks[0].report = Some(SenderReport { ntp: 5 * SECOND, rtp: 1_000 });
        assert_eq!(align(&tracks, 0).basis, Basis::SessionZero);
        tracks[1].report = Some(SenderReport { ntp: 16 * SECOND, rtp: 70_000 });
        let aligned = align(&tracks, 0);
        assert_eq!(aligned.basis, Basis::SessionZero);
        assert_eq!(aligned.origins, [1_000, 70_000]);
    }

    #[test]
    fn a_track_still_to_come_gets_headroom() {
        let mut tracks = [video(1_000), audio(0)];
        tracks[1].first = None;
        assert_eq!(align(&tracks, 1_000).origins, [1_000 - 90_000, 70_000 - 8_000]);
    }

    proptest! {
        /// Whatever the clocks say: the earliest sample is at 0 (but for one tick of rounding),
        /// none is before it.
        #[test]
        fn no_first_sample_is_before_the_origin(
            clocks in prop::collection::vec(
                (1_u32..200_000, any::<u32>(), -1_000_000_i64..1_000_000,
                 prop::option::of((any::<u64>(), any::<u32>()))),
                1..5,
            ),
        ) {
            let tracks: Vec<TrackClock> = clocks
                .into_iter()
                .map(|(timescale, zero, first, report)| TrackClock {
                    timescale,
                    zero: i64::from(zero),
                    report: report.map(|(ntp, rtp)| SenderReport { ntp, rtp: i64::from(rtp) }),
                    first: Some(i64::from(zero) + first),
                })
                .collect();
            let aligned = align(&tracks, 1_000);
            let firsts: Vec<i64> = tracks
                .iter()
                .zip(&aligned.origins)
                .map(|(track, origin)| track.first.expect("given") - origin)
                .collect();
            prop_assert!(firsts.iter().all(|first| *first >= 0), "{firsts:?}");
            prop_assert!(firsts.contains(&0), "{firsts:?}");
        }
    }
}
