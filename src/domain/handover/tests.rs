//! A camera's units on two connections, however they lie in time: each goes out once.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::domain::sample::{Codec, Shape};

const VIDEO: TrackId = TrackId(1);
const AUDIO: TrackId = TrackId(2);
/// Ticks between pictures, and between audio frames of 1024 samples.
const PICTURE: i64 = 3_600;
const FRAME: i64 = 1_024;
const GOP: i64 = 10;

fn tracks() -> Vec<Track> {
    let track = |id, codec, timescale, shape| {
        let config = Bytes::new();
        Track { id, codec, timescale, config, shape }
    };
    vec![
        track(VIDEO, Codec::H264, 90_000, Shape::Video { width: 64, height: 64 }),
        track(AUDIO, Codec::Aac, 48_000, Shape::Audio { sample_rate: 48_000, channels: 1 }),
    ]
}

/// What the camera makes in its own time: pictures as I P B P B …, and sound. With the media time of
/// each in milliseconds.
fn made(pictures: i64, other: u8) -> Vec<(i64, Sample)> {
    let mut all = Vec::new();
    for number in 0..pictures {
        let dts = number * PICTURE;
        // One picture of delay; every other one is shown before the one that came before it.
        let in_gop = number % GOP;
        let later = if in_gop == 0 {
            1
        } else if in_gop % 2 == 1 {
            2
        } else {
            0
        };
        let pts = dts + later * PICTURE;
        let data = Bytes::from(vec![other, b'v', (number % 251) as u8, (number / 251) as u8]);
        let key = in_gop == 0;
        all.push((dts / 90, Sample { track: VIDEO, dts, pts, key, data }));
    }
    for number in 0..pictures * PICTURE * 8 / 15 / FRAME {
        let dts = number * FRAME;
        let data = Bytes::from(vec![other, b'a', (number % 251) as u8, (number / 251) as u8]);
        all.push((dts / 48, Sample { track: AUDIO, dts, pts: dts, key: true, data }));
    }
    all.sort_by_key(|(ms, sample)| (*ms, sample.track));
    all
}

/// One connection: what comes on it from a time of the camera on, pictures from the next key frame,
/// each later by what the way takes; its times begin elsewhere.
struct Connection {
    from_ms: i64,
    way_ms: [i64; 2],
    origin_ms: i64,
    lost: Option<usize>,
}

impl Connection {
    fn brings(&self, made: &[(i64, Sample)]) -> Vec<(i64, Sample)> {
        let first_key = made
            .iter()
            .find(|(ms, sample)| sample.track == VIDEO && sample.key && *ms >= self.from_ms);
        let begins = first_key.map_or(i64::MAX, |(ms, _)| *ms);
        let mut came: Vec<(i64, Sample)> = made
            .iter()
            .filter(|(ms, sample)| *ms >= self.from_ms && (sample.track == AUDIO || *ms >= begins))
            .map(|(ms, sample)| {
                let ticks = if sample.track == VIDEO { 90 } else { 48 };
                let sample = shifted(sample.clone(), -self.origin_ms * ticks);
                let way = self.way_ms[usize::from(sample.track == AUDIO)];
                (ms + way, sample)
            })
            .collect();
        if let Some(lost) = self.lost.filter(|lost| *lost < came.len()) {
            came.remove(lost);
        }
        came.sort_by_key(|(ms, _)| *ms);
        came
    }
}

fn at(ms: i64) -> BootTime {
    BootTime(u64::try_from(ms + 10_000).expect("small"))
}

/// Both connections into one machine, in the order of time. The next one is opened when it begins.
fn run(
    current: &[(i64, Sample)],
    next: &[(i64, Sample)],
    clock_ms: Option<i64>,
) -> (Vec<Sample>, Handover) {
    let mut handover = Handover::default();
    handover.current(Output::Tracks(tracks(), Vec::new()), at(0));
    let begins = next.first().map_or(i64::MAX, |(ms, _)| *ms);
    let mut all: Vec<(i64, bool, &Sample)> =
        current.iter().map(|(ms, s)| (*ms, false, s)).collect();
    all.extend(next.iter().map(|(ms, sample)| (*ms, true, sample)));
    all.sort_by_key(|(ms, is_next, _)| (*ms, *is_next));
    let (mut begun, mut promoted, mut out) = (false, false, Vec::new());
    for (ms, is_next, sample) in all {
        if !begun && ms >= begins {
            begun = true;
            handover.begin();
            handover.next(Output::Tracks(tracks(), Vec::new()), at(ms));
            if let Some(clock_ms) = clock_ms {
                handover.current_clock(7 << 32);
                handover.next_clock((7_u64 << 32).wrapping_add_signed((clock_ms << 32) / 1_000));
            }
        }
        let output = Output::Sample(sample.clone());
        match (is_next, promoted) {
            (false, false) => handover.current(output, at(ms)),
            (true, false) => handover.next(output, at(ms)),
            (true, true) => handover.current(output, at(ms)),
            // The old connection is closed.
            (false, true) => {}
        }
        if handover.standing() == Standing::Switched {
            handover.promote();
            promoted = true;
        }
        out.extend(samples(&mut handover));
    }
    (out, handover)
}

fn samples(handover: &mut Handover) -> Vec<Sample> {
    std::iter::from_fn(|| handover.next_output())
        .filter_map(|output| match output {
            Output::Sample(sample) => Some(sample),
            _ => None,
        })
        .collect()
}

fn of(track: TrackId, all: &[Sample]) -> Vec<Sample> {
    all.iter().filter(|sample| sample.track == track).cloned().collect()
}

/// Every unit from the current connection's first to the last one made: once, in order, in the times
/// of the current one.
fn assert_whole(out: &[Sample], made: &[(i64, Sample)]) -> Result<(), TestCaseError> {
    for track in [VIDEO, AUDIO] {
        let sent: Vec<Sample> = made.iter().map(|(_, sample)| sample.clone()).collect();
        let (out, sent) = (of(track, out), of(track, &sent));
        prop_assert!(out.len() > sent.len() / 2, "{} of {}", out.len(), sent.len());
        // The end of what was made may still be on its way.
        let part = &sent[..out.len()];
        for (out, sent) in out.iter().zip(part) {
            prop_assert_eq!(&out.data, &sent.data, "{:?} at {}", track, out.dts);
            prop_assert!((out.dts - sent.dts).abs() <= 1, "{} is not {}", out.dts, sent.dts);
            prop_assert_eq!(out.pts - out.dts, sent.pts - sent.dts);
        }
    }
    Ok(())
}

proptest! {
    /// Ways of any length to either side, any origin of time, any instant: nothing is lost, nothing
    /// comes twice, and the switch is made.
    #[test]
    fn each_unit_goes_out_once(
        way_ms in prop::array::uniform4(0_i64..1_500),
        from_ms in 1_000_i64..3_000,
        origin_ms in -100_000_i64..100_000,
    ) {
        let made = made(400, 0);
        let current =
            Connection { from_ms: 0, way_ms: [way_ms[0], way_ms[1]], origin_ms: 0, lost: None };
        let next =
            Connection { from_ms, way_ms: [way_ms[2], way_ms[3]], origin_ms, lost: None };
        let (out, handover) = run(&current.brings(&made), &next.brings(&made), None);
        prop_assert_eq!(handover.standing(), Standing::Alone);
        prop_assert!(!handover.gave_up);
        prop_assert!(handover.lanes.iter().any(|lane| lane.shift != 0) || origin_ms == 0);
        assert_whole(&out, &made)?;
    }

    /// A unit that is lost on one of them is missed at most once, and makes no other one come twice.
    #[test]
    fn a_loss_makes_nothing_come_twice(
        of_current in prop::option::of(0_usize..600),
        of_next in prop::option::of(0_usize..600),
        way_ms in prop::array::uniform4(0_i64..800),
    ) {
        let made = made(400, 0);
        let connection = |from_ms, way_ms, origin_ms, lost| {
            Connection { from_ms, way_ms, origin_ms, lost }.brings(&made)
        };
        let current = connection(0, [way_ms[0], way_ms[1]], 0, of_current);
        let next = connection(2_000, [way_ms[2], way_ms[3]], 5_000, of_next);
        let (out, _) = run(&current, &next, None);
        for track in [VIDEO, AUDIO] {
            let times: Vec<i64> = of(track, &out).iter().map(|sample| sample.dts).collect();
            prop_assert!(times.windows(2).all(|two| two[0] < two[1]), "{:?}", track);
        }
        let sent = made.iter().filter(|(_, sample)| sample.track == VIDEO).count();
        prop_assert!(of(VIDEO, &out).len() + 60 > sent);
    }
}

/// Found by the property above: the picture that the current one had lost was put in behind the one
/// after it, since the step to that one was two pictures long.
#[test]
fn what_the_current_one_lost_is_not_put_in_behind_what_came_after_it() {
    let made = made(400, 0);
    let connection = |from_ms, way_ms, origin_ms, lost| {
        Connection { from_ms, way_ms, origin_ms, lost }.brings(&made)
    };
    let current = connection(0, [201, 0], 0, Some(167));
    let (out, _) = run(&current, &connection(2_000, [563, 552], 5_000, None), None);
    let times: Vec<i64> = of(VIDEO, &out).iter().map(|sample| sample.dts).collect();
    assert!(times.windows(2).all(|two| two[0] < two[1]), "{times:?}");
}

#[test]
fn other_encoders_are_joined_by_the_senders_clocks() {
    let (made, other) = (made(400, 0), made(400, 1));
    let current = Connection { from_ms: 0, way_ms: [0, 0], origin_ms: 0, lost: None };
    let next = Connection { from_ms: 2_000, way_ms: [5, 5], origin_ms: 1_500, lost: None };
    let (out, handover) = run(&current.brings(&made), &next.brings(&other), Some(1_500));
    assert!(handover.lanes.iter().all(|lane| lane.shift != 0), "{handover:?}");
    for track in [VIDEO, AUDIO] {
        let out = of(track, &out);
        let sent: Vec<Sample> = other.iter().map(|(_, sample)| sample.clone()).collect();
        let sent = of(track, &sent);
        let first = out.iter().position(|sample| sample.data[0] == 1).expect("switched");
        assert!(out[first..].iter().all(|sample| sample.data[0] == 1), "once");
        let times = |all: &[Sample]| -> Vec<i64> { all.iter().map(|sample| sample.dts).collect() };
        assert_eq!(times(&out), times(&sent)[..out.len()], "{track:?}: no step at the join");
        assert!(out[first].key);
    }
}

#[test]
fn without_clocks_the_next_key_frame_follows_at_once() {
    let (made, other) = (made(400, 0), made(400, 1));
    let current = Connection { from_ms: 0, way_ms: [0, 0], origin_ms: 0, lost: None };
    let next = Connection { from_ms: 2_000, way_ms: [5, 5], origin_ms: 90_000, lost: None };
    let (out, _) = run(&current.brings(&made), &next.brings(&other), None);
    let pictures = of(VIDEO, &out);
    let first = pictures.iter().position(|sample| sample.data[0] == 1).expect("switched");
    assert!(pictures[first].key);
    let steps: Vec<i64> = pictures.windows(2).map(|two| two[1].dts - two[0].dts).collect();
    assert!(steps.iter().all(|step| *step == PICTURE), "no gap and no overlap: {steps:?}");
}

#[test]
fn a_next_one_that_stops_after_the_join_costs_nothing() {
    let made = made(400, 0);
    let current = Connection { from_ms: 0, way_ms: [0, 0], origin_ms: 0, lost: None };
    let next = Connection { from_ms: 2_000, way_ms: [50, 50], origin_ms: 700, lost: None };
    let mut few = next.brings(&made);
    let key = few.iter().position(|(_, sample)| sample.track == VIDEO).expect("a key frame");
    few.truncate(key + 1);
    let (mut out, mut handover) = run(&current.brings(&made), &few, None);
    assert_eq!(handover.standing(), Standing::GaveUp);
    handover.abandon();
    out.extend(samples(&mut handover));
    let sent: Vec<Sample> = made.iter().map(|(_, sample)| sample.clone()).collect();
    for track in [VIDEO, AUDIO] {
        assert_eq!(of(track, &out), of(track, &sent), "{track:?}");
    }
}

#[test]
fn when_the_current_one_ends_the_next_one_goes_on() {
    let made = made(400, 0);
    let current = Connection { from_ms: 0, way_ms: [0, 0], origin_ms: 0, lost: None }.brings(&made);
    let next = Connection { from_ms: 2_000, way_ms: [900, 900], origin_ms: 700, lost: None };
    let next = next.brings(&made);
    let mut handover = Handover::default();
    handover.current(Output::Tracks(tracks(), Vec::new()), at(0));
    handover.begin();
    handover.next(Output::Tracks(tracks(), Vec::new()), at(0));
    for (ms, sample) in current.iter().filter(|(ms, _)| *ms < 2_500) {
        handover.current(Output::Sample(sample.clone()), at(*ms));
    }
    handover.current_ended(at(2_500));
    for (ms, sample) in &next {
        handover.next(Output::Sample(sample.clone()), at(*ms));
    }
    assert_eq!(handover.standing(), Standing::Switched);
    let out = samples(&mut handover);
    let sent: Vec<Sample> = made.iter().map(|(_, sample)| sample.clone()).collect();
    assert_eq!(of(VIDEO, &out).len(), of(VIDEO, &sent).len(), "what overlaps is taken once");
    assert!(of(VIDEO, &out).windows(2).all(|two| two[1].dts - two[0].dts == PICTURE));
}

#[test]
fn sound_of_another_codec_never_mixes_with_what_was_there_before() {
    let (made, other) = (made(400, 0), made(400, 1));
    let mut others = tracks();
    others[1].codec = Codec::PcmAlaw;
    let mut handover = Handover::default();
    handover.current(Output::Tracks(tracks(), Vec::new()), at(0));
    handover.begin();
    handover.next(Output::Tracks(others.clone(), Vec::new()), at(0));
    let mut announced = None;
    for ((ms, current), (_, next)) in made.iter().zip(&other) {
        handover.current(Output::Sample(current.clone()), at(*ms));
        handover.next(Output::Sample(next.clone()), at(*ms));
        while let Some(output) = handover.next_output() {
            match output {
                Output::Tracks(tracks, _) => announced = Some(tracks),
                Output::Sample(sample) => {
                    let is_other = announced.as_ref() == Some(&others);
                    assert_eq!(sample.data[0] == 1, is_other, "{:?} at {ms}", sample.track);
                }
                Output::Origin(..) => {}
            }
        }
    }
    assert_eq!(handover.standing(), Standing::Switched);
}
