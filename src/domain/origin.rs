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

/// What is known of the clock of a track that has samples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackClock {
    /// Ticks a second; never 0.
    pub timescale: u32,
    /// RTP time that session control calls zero.
    pub zero: i64,
    /// The first sender report; `None` if none came or it has no NTP time.
    pub report: Option<SenderReport>,
    /// Decoding time of a sample in RTP time: the earliest.
    pub sample: i64,
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

/// Sender reports that put samples further apart than this are not believed, in seconds.
const PLAUSIBLE_SECONDS: i128 = 10;

/// Puts tracks on a common axis whose origin lies `headroom_ms` before the earliest sample, for
/// samples of other tracks that are still to come.
#[must_use]
pub fn align(tracks: &[TrackClock], headroom_ms: u32) -> Alignment {
    let (basis, anchors) = anchors(tracks);
    let earliest = samples(tracks, &anchors).min().unwrap_or(0);
    let origin = earliest - (i128::from(headroom_ms) << 32) / 1_000;
    Alignment { basis, origins: anchors.iter().map(|anchor| anchor.rtp_of(origin)).collect() }
}

/// The origin of a late track on the axis on which `reference` has `reference_origin`. The sample
/// of the reference is its latest here.
#[must_use]
pub fn join(reference: &TrackClock, reference_origin: i64, late: &TrackClock) -> i64 {
    let (_, anchors) = anchors(&[*reference, *late]);
    anchors[1].rtp_of(anchors[0].fixed_of(reference_origin))
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

/// One anchor per track: its sender report if all have one and they are plausible, else the zero.
fn anchors(tracks: &[TrackClock]) -> (Basis, Vec<Anchor>) {
    let reports: Option<Vec<SenderReport>> = tracks.iter().map(|track| track.report).collect();
    if let Some(reports) = reports.filter(|_| tracks.len() > 1) {
        let base = reports[0].ntp;
        let anchor = |(track, report): (&TrackClock, &SenderReport)| Anchor {
            timescale: track.timescale,
            rtp: report.rtp,
            // Difference of wrapping clocks.
            fixed: i128::from(report.ntp.wrapping_sub(base) as i64),
        };
        let anchors: Vec<Anchor> = tracks.iter().zip(&reports).map(anchor).collect();
        if are_plausible(tracks, &anchors) {
            return (Basis::SenderReports, anchors);
        }
    }
    let anchor =
        |track: &TrackClock| Anchor { timescale: track.timescale, rtp: track.zero, fixed: 0 };
    (Basis::SessionZero, tracks.iter().map(anchor).collect())
}

fn are_plausible(tracks: &[TrackClock], anchors: &[Anchor]) -> bool {
    let low = samples(tracks, anchors).min().unwrap_or(0);
    let high = samples(tracks, anchors).max().unwrap_or(0);
    high - low <= PLAUSIBLE_SECONDS << 32
}

/// The samples of the tracks on the common axis.
fn samples<'a>(tracks: &'a [TrackClock], anchors: &'a [Anchor]) -> impl Iterator<Item = i128> + 'a {
    tracks.iter().zip(anchors).map(|(track, anchor)| anchor.fixed_of(track.sample))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: u64 = 1 << 32;

    fn video(sample: i64) -> TrackClock {
        TrackClock { timescale: 90_000, zero: 1_000, report: None, sample }
    }

    fn audio(sample: i64) -> TrackClock {
        TrackClock { timescale: 8_000, zero: 70_000, report: None, sample }
    }

    #[test]
    fn a_single_track_begins_at_zero() {
        assert_eq!(align(&[video(-106_976)], 0).origins, [-106_976]);
    }

    #[test]
    fn without_reports_the_session_zero_is_common() {
        // Video begins half a second after the zero, audio a second before it.
        let aligned = align(&[video(46_000), audio(62_000)], 0);
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
        let aligned = align(&tracks, 0);
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
    fn headroom_is_left_for_a_late_track_which_joins_the_axis() {
        let reference = video(1_000);
        let origin = align(&[reference], 1_000).origins[0];
        assert_eq!(origin, 1_000 - 90_000);
        // By the session zero.
        assert_eq!(join(&reference, origin, &audio(70_000)), 70_000 - 8_000);
        // By sender reports: audio's 50,000 is the instant of video's 91,000.
        let report = |rtp| Some(SenderReport { ntp: 7 * SECOND, rtp });
        let reference = TrackClock { report: report(91_000), ..reference };
        let late = TrackClock { report: report(50_000), ..audio(50_000) };
        assert_eq!(join(&reference, origin, &late), 50_000 - 16_000);
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
                    sample: i64::from(zero) + first,
                })
                .collect();
            let aligned = align(&tracks, 0);
            let firsts: Vec<i64> = tracks
                .iter()
                .zip(&aligned.origins)
                .map(|(track, origin)| track.sample - origin)
                .collect();
            prop_assert!(firsts.iter().all(|first| *first >= 0), "{firsts:?}");
            prop_assert!(firsts.contains(&0), "{firsts:?}");
        }
    }
}
