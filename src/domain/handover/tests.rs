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
/// each later by what the way takes; its times begin elsewhere. The decoding times of its pictures lie
/// whole pictures off, as where one has seen deeper reordering.
#[derive(Clone, Copy, Default)]
struct Connection {
    from_ms: i64,
    way_ms: [i64; 2],
    origin_ms: i64,
    lost: Option<usize>,
    pictures_off: i64,
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
                let mut sample = shifted(sample.clone(), -self.origin_ms * ticks);
                if sample.track == VIDEO {
                    sample.dts += self.pictures_off * PICTURE;
                }
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
            handover.begin(at(ms));
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
fn assert_whole(
    out: &[Sample],
    made: &[(i64, Sample)],
    dts_alike: bool,
) -> Result<(), TestCaseError> {
    for track in [VIDEO, AUDIO] {
        let sent: Vec<Sample> = made.iter().map(|(_, sample)| sample.clone()).collect();
        let (out, sent) = (of(track, out), of(track, &sent));
        prop_assert!(out.len() > sent.len() / 2, "{} of {}", out.len(), sent.len());
        // The end of what was made may still be on its way.
        let part = &sent[..out.len()];
        for (out, sent) in out.iter().zip(part) {
            prop_assert_eq!(&out.data, &sent.data, "{:?} at {}", track, out.dts);
            prop_assert!((out.pts - sent.pts).abs() <= 1, "{} is not {}", out.pts, sent.pts);
            if dts_alike {
                prop_assert_eq!(out.pts - out.dts, sent.pts - sent.dts);
            }
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
        pictures_off in -2_i64..=1,
    ) {
        let made = made(400, 0);
        let current = Connection { way_ms: [way_ms[0], way_ms[1]], ..Connection::default() };
        let way_ms = [way_ms[2], way_ms[3]];
        let next = Connection { from_ms, way_ms, origin_ms, pictures_off, ..current };
        let (out, handover) = run(&current.brings(&made), &next.brings(&made), None);
        prop_assert_eq!(handover.standing(), Standing::Alone);
        prop_assert!(!handover.gave_up);
        prop_assert!(handover.lanes.iter().any(|lane| lane.shift != 0) || origin_ms == 0);
        assert_whole(&out, &made, pictures_off == 0)?;
    }

    /// A unit that is lost on one of them is missed at most once, and makes no other one come twice or
    /// late.
    #[test]
    fn a_loss_makes_nothing_come_twice(
        of_current in prop::option::of(0_usize..600),
        of_next in prop::option::of(0_usize..600),
        way_ms in prop::array::uniform4(0_i64..800),
    ) {
        let made = made(400, 0);
        let connection = |from_ms, way_ms, origin_ms, lost| {
            Connection { from_ms, way_ms, origin_ms, lost, pictures_off: 0 }.brings(&made)
        };
        let current = connection(0, [way_ms[0], way_ms[1]], 0, of_current);
        let next = connection(2_000, [way_ms[2], way_ms[3]], 5_000, of_next);
        let (mut out, mut handover) = run(&current, &next, None);
        // What still waits at the end goes out.
        handover.abandon();
        out.extend(samples(&mut handover));
        for track in [VIDEO, AUDIO] {
            prop_assert!(of(track, &out).windows(2).all(|two| two[0].dts < two[1].dts));
            let sent: Vec<Sample> = made.iter().map(|(_, sample)| sample.clone()).collect();
            let sent = of(track, &sent);
            let place = |sample: &Sample| sent.iter().position(|sent| sent.data == sample.data);
            let places: Vec<Option<usize>> = of(track, &out).iter().map(place).collect();
            prop_assert!(places.windows(2).all(|two| two[0] < two[1]), "{:?}: {:?}", track, places);
            let lost = usize::from(of_current.is_some()) + usize::from(of_next.is_some());
            prop_assert!(sent.len() - places.len() <= lost, "{:?}: {:?}", track, places);
        }
    }
}

/// Found by the properties above: a picture that was lost was put in behind the one after it; the step over
/// lost sound was taken for that of the sound; sound that came later than the switch was not waited for.
#[test]
fn what_the_properties_found_stays_mended() {
    let made = made(400, 0);
    for (way_ms, next_from_ms, next_way_ms, lost, missing) in [
        ([201, 0], 2_000, [563, 552], Some(167), vec![]),
        ([318, 548], 2_000, [617, 0], Some(171), vec![111 * FRAME]),
        ([98, 1_458], 1_000, [0, 0], None, vec![]),
    ] {
        let current = Connection { way_ms, lost, ..Connection::default() };
        let (from_ms, way_ms, lost) = (next_from_ms, next_way_ms, None);
        let next = Connection { from_ms, way_ms, origin_ms: 5_000, lost, ..current };
        let (out, _) = run(&current.brings(&made), &next.brings(&made), None);
        assert!(of(VIDEO, &out).windows(2).all(|two| two[0].dts < two[1].dts), "{next_from_ms}");
        let sound = of(AUDIO, &out);
        let last = sound.last().map_or(0, |sample| sample.dts);
        let due = (0..=last / FRAME).map(|number| number * FRAME);
        let came = |dts: &i64| sound.iter().any(|sample| sample.dts == *dts);
        assert_eq!(due.filter(|dts| !came(dts)).collect::<Vec<_>>(), missing, "{next_from_ms}");
    }
}

#[test]
fn other_encoders_are_joined_by_the_senders_clocks() {
    let (made, other) = (made(400, 0), made(400, 1));
    let current = Connection { from_ms: 0, way_ms: [0, 0], origin_ms: 0, ..Connection::default() };
    let next =
        Connection { from_ms: 2_000, way_ms: [5, 5], origin_ms: 1_500, ..Connection::default() };
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
    let current = Connection { from_ms: 0, way_ms: [0, 0], origin_ms: 0, ..Connection::default() };
    let next =
        Connection { from_ms: 2_000, way_ms: [5, 5], origin_ms: 90_000, ..Connection::default() };
    let (out, _) = run(&current.brings(&made), &next.brings(&other), None);
    let pictures = of(VIDEO, &out);
    let first = pictures.iter().position(|sample| sample.data[0] == 1).expect("switched");
    assert!(pictures[first].key);
    let steps: Vec<i64> = pictures.windows(2).map(|two| two[1].dts - two[0].dts).collect();
    assert!(steps.iter().all(|step| *step == PICTURE), "no gap and no overlap: {steps:?}");
    let number = |sample: &Sample| usize::from(sample.data[2]) + 251 * usize::from(sample.data[3]);
    let mut seen: Vec<usize> = pictures.iter().map(number).collect();
    // The key frame came when the current one had shown that very instant.
    assert_eq!(seen.remove(first), seen[first - 1], "no more is shown twice");
    assert_eq!(seen, (0..seen.len()).collect::<Vec<_>>(), "nothing is left out");
}

/// A next connection into the machine from 2 s on, with what comes on it made by `each`; the current one
/// goes on. What goes out, and how many pictures were held at most.
fn beside(
    made: &[(i64, Sample)],
    clock_ms: Option<i64>,
    mut each: impl FnMut(&Sample) -> Option<Sample>,
) -> (Vec<Sample>, Handover, usize) {
    let mut handover = Handover::default();
    handover.current(Output::Tracks(tracks(), Vec::new()), at(0));
    let (mut out, mut held_max) = (Vec::new(), 0);
    for (ms, sample) in made {
        handover.current(Output::Sample(sample.clone()), at(*ms));
        if *ms == 2_000 && sample.track == VIDEO {
            handover.begin(at(*ms));
            handover.next(Output::Tracks(tracks(), Vec::new()), at(*ms));
            if let Some(clock_ms) = clock_ms {
                handover.current_clock(7 << 32);
                handover.next_clock((7_u64 << 32).wrapping_add_signed((clock_ms << 32) / 1_000));
            }
        }
        if *ms > 2_000
            && let Some(sample) = each(sample)
        {
            handover.next(Output::Sample(sample), at(*ms));
        }
        handover.tick(at(*ms));
        let held = handover.next.as_ref().and_then(|next| next.held.get(&VIDEO));
        held_max = held_max.max(held.map_or(0, VecDeque::len));
        out.extend(samples(&mut handover));
    }
    (out, handover, held_max)
}

fn assert_only_the_current_one(out: &[Sample], made: &[(i64, Sample)]) {
    for track in [VIDEO, AUDIO] {
        let sent: Vec<Sample> = made.iter().map(|(_, sample)| sample.clone()).collect();
        assert_eq!(of(track, out), of(track, &sent), "{track:?}");
    }
}

#[test]
fn a_next_one_without_a_key_frame_is_given_up() {
    let made = made(400, 0);
    let keyless = |sample: &Sample| Some(Sample { key: sample.track == AUDIO, ..sample.clone() });
    let (out, handover, _) = beside(&made, None, keyless);
    assert_eq!(handover.standing(), Standing::GaveUp);
    assert_only_the_current_one(&out, &made);
}

#[test]
fn a_next_one_with_a_single_key_frame_is_held_no_longer_than_the_rule_says() {
    let made = made(700, 0);
    let mut keys = 0;
    // Another encoder, which refreshes pictures bit by bit.
    let single = |sample: &Sample| {
        keys += usize::from(sample.key && sample.track == VIDEO);
        let key = sample.key && (sample.track == AUDIO || keys == 1);
        Some(Sample {
            key,
            data: Bytes::from([&[1], &sample.data[1..]].concat()),
            ..sample.clone()
        })
    };
    let (out, handover, held_max) = beside(&made, Some(0), single);
    assert!(held_max <= 76, "{held_max} pictures are held, and 3 s are 75");
    assert_eq!(handover.standing(), Standing::GaveUp);
    assert_only_the_current_one(&out, &made);
}

#[test]
fn pictures_that_are_not_described_yet_are_waited_for() {
    let (made, other) = (made(400, 0), made(400, 1));
    let mut handover = Handover::default();
    handover.current(Output::Tracks(tracks(), Vec::new()), at(0));
    handover.begin(at(0));
    handover.next(Output::Tracks(tracks()[1..].to_vec(), Vec::new()), at(0));
    let mut out = Vec::new();
    for ((ms, current), (_, next)) in made.iter().zip(&other) {
        handover.current(Output::Sample(current.clone()), at(*ms));
        if *ms == 6_400 && next.track == VIDEO {
            assert_eq!(handover.standing(), Standing::Beside, "its sound alone is not the stream");
            handover.next(Output::Tracks(tracks(), Vec::new()), at(*ms));
        }
        if *ms >= 6_400 || next.track == AUDIO {
            handover.next(Output::Sample(next.clone()), at(*ms));
        }
        out.extend(samples(&mut handover));
    }
    assert_eq!(handover.standing(), Standing::Switched);
    for track in [VIDEO, AUDIO] {
        let times: Vec<i64> = of(track, &out).iter().map(|sample| sample.dts).collect();
        let mut steps = times.windows(2).map(|two| two[1] - two[0]);
        // Sound frames of two encoders do not lie on one grid.
        let step_max = if track == VIDEO { PICTURE } else { 2 * FRAME };
        assert!(steps.all(|step| (1..=step_max).contains(&step)), "{track:?}: {times:?}");
    }
}

#[test]
fn tracks_go_on_as_they_were_called_whatever_order_a_camera_lists_them_in() {
    let (made, other) = (made(400, 0), made(400, 1));
    let swapped = |id: TrackId| if id == VIDEO { AUDIO } else { VIDEO };
    let mut others: Vec<Track> =
        tracks().into_iter().map(|track| Track { id: swapped(track.id), ..track }).collect();
    others.reverse();
    let mut handover = Handover::default();
    handover.current(Output::Tracks(tracks(), Vec::new()), at(0));
    handover.begin(at(0));
    handover.next(Output::Tracks(others, Vec::new()), at(0));
    handover.current_clock(7 << 32);
    handover.next_clock(7 << 32);
    let mut out = Vec::new();
    for ((ms, current), (_, next)) in made.iter().zip(&other) {
        let next = Sample { track: swapped(next.track), ..next.clone() };
        if handover.standing() == Standing::Switched {
            handover.promote();
        }
        if handover.standing() == Standing::Alone {
            handover.current(Output::Sample(next), at(*ms));
        } else {
            // The next one comes first, and so what the current one brings waits for nothing.
            handover.current(Output::Sample(current.clone()), at(*ms));
            handover.next(Output::Sample(next), at(*ms));
        }
        out.extend(samples(&mut handover));
    }
    for track in [VIDEO, AUDIO] {
        let sent: Vec<Sample> = made.iter().map(|(_, sample)| sample.clone()).collect();
        let (out, sent) = (of(track, &out), of(track, &sent));
        assert_eq!(out.last().map(|sample| sample.data[0]), Some(1), "{track:?} was switched");
        let units = |all: &[Sample]| -> Vec<(i64, Bytes)> {
            all.iter().map(|sample| (sample.dts, sample.data.slice(1..))).collect()
        };
        assert_eq!(units(&out), units(&sent)[..out.len()], "{track:?}: each once");
        assert!(sent.len() - out.len() <= 1, "{track:?}");
    }
}

#[test]
fn a_next_one_that_stops_after_the_join_costs_nothing() {
    let made = made(400, 0);
    let current = Connection { from_ms: 0, way_ms: [0, 0], origin_ms: 0, ..Connection::default() };
    let next =
        Connection { from_ms: 2_000, way_ms: [50, 50], origin_ms: 700, ..Connection::default() };
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
    let current = Connection { from_ms: 0, way_ms: [0, 0], origin_ms: 0, ..Connection::default() }
        .brings(&made);
    let next =
        Connection { from_ms: 2_000, way_ms: [900, 900], origin_ms: 700, ..Connection::default() };
    let next = next.brings(&made);
    let mut handover = Handover::default();
    handover.current(Output::Tracks(tracks(), Vec::new()), at(0));
    handover.begin(at(0));
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
    handover.begin(at(0));
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
