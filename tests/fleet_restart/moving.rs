//! A camera whose address changes: the new connection is opened while the old one is recorded, and
//! each access unit of the camera is kept once. One that allows a single session is closed first, and
//! the gap is in the ledger. The reference is the camera's own account of what its encoder made.

use std::time::Duration;

use serde_json::Value;

use super::going_back::{
    assert_never_went_back, hear_all_recorded, hear_recorded, rules, rules_of, start,
};
use super::support::broker::Broker;
use super::support::camera::Camera;
use super::support::edge_box::EdgeBox;
use super::support::ffmpeg::Ffmpeg;
use super::support::operator::Operator;
use super::support::units::{Audio, Media, Units, Video, read};
use super::support::wait::wait_until;
use super::{SOON, TO_ALL};

const KEY: &str = "cams/live/gate";
const GOES_ON: &str = "camera goes on over its new connection";
/// Rounded once to a tick of RTP on either connection, and the tracks aligned by sender reports.
const APART_MAX_S: f64 = 0.001;

/// A box that records the camera at its first address, and then is told of the second.
fn move_camera(camera: &Camera, [from, to]: [&str; 2], said: &str) -> (EdgeBox, Operator, Broker) {
    let broker = Broker::start();
    let mut operator = Operator::connect(broker.addr());
    let edge = start(&broker, &mut operator, &rules(10, camera.url(from).as_str(), 1_800));
    hear_recorded(&operator, 10, 10);
    wait_for_pictures(camera, from, 60);
    operator.send(TO_ALL, rules(11, camera.url(to).as_str(), 1_800).to_string());
    wait_until(SOON, said, || edge.log().contains(said));
    wait_for_pictures(camera, to, 120);
    hear_recorded(&operator, 11, 11);
    (edge, operator, broker)
}

fn units<'a>(account: &'a [Value], track: &str) -> Vec<&'a Value> {
    account.iter().filter(|entry| entry["kind"] == "unit" && entry["track"] == track).collect()
}

/// Waits until so many pictures were sent on a mount.
fn wait_for_pictures(camera: &Camera, mount: &str, count: usize) {
    wait_until(SOON, mount, || units(&camera.account(mount), "video").len() >= count);
}

/// Ends the box and reads its files, oldest first.
fn read_files(edge: &mut EdgeBox, audio: Option<Audio>) -> Vec<Media> {
    edge.terminate(Duration::from_secs(20));
    let mut rows = edge.ls();
    rows.sort_by_key(|row| row["start_ms"].as_i64());
    let file = |(number, row): (usize, &Value)| {
        let id = row["file_id"].as_str().expect("a row has a file id");
        let path = edge.export_file(id, &format!("{number}.mp4"));
        read(Ffmpeg::System, &path, Some(Video::H264), audio)
    };
    rows.iter().enumerate().map(file).collect()
}

/// Places of units in what the encoder made; fails the test if one is not in it.
fn places(what: &str, kept: &Units, made: &[&Value]) -> Vec<usize> {
    let place = |hash: String| {
        let place = made.iter().position(|entry| entry["sha256"] == hash);
        place.unwrap_or_else(|| panic!("{what}: a unit that the camera did not make"))
    };
    kept.units.iter().map(|unit| place(unit.sha256())).collect()
}

/// How long a gap is that is told as "from … to … what was due is missing", in seconds.
fn told_gap_s(reason: &str) -> f64 {
    let mut words = reason.split_whitespace();
    let mut time_after = |word: &str| -> jiff::Timestamp {
        let mut all = words.by_ref().skip_while(|other| *other != word).skip(1);
        all.find_map(|time| time.parse().ok()).unwrap_or_else(|| panic!("{word}: {reason}"))
    };
    let (from, to) = (time_after("from"), time_after("to"));
    (to.as_millisecond() - from.as_millisecond()) as f64 / 1e3
}

/// One shift brings all times onto the encoder's.
fn assert_in_time(what: &str, kept: &Units, made: &[&Value], places: &[usize]) {
    let ticks_per_s = kept.ticks_per_s as f64;
    let shifts = kept.units.iter().zip(places).map(|(unit, place)| {
        let made_ns = made[*place]["pts"].as_i64().expect("a time");
        unit.pts as f64 / ticks_per_s - made_ns as f64 / 1e9
    });
    let shifts: Vec<f64> = shifts.collect();
    let min = shifts.iter().copied().fold(f64::MAX, f64::min);
    let max = shifts.iter().copied().fold(f64::MIN, f64::max);
    assert!(max - min <= APART_MAX_S, "{what}: times are {} s apart", max - min);
}

#[test]
fn a_camera_that_moves_loses_no_unit_and_repeats_none() {
    let camera = Camera::twin(0);
    let (mut edge, _operator, _broker) = move_camera(&camera, ["/main", "/sub"], GOES_ON);
    let files = read_files(&mut edge, Some(Audio::Aac));
    assert_eq!(files.len(), 1, "the file goes on over the move");
    let account = camera.account("encoder");
    for (what, kept) in [("video", &files[0].video), ("audio", &files[0].audio)] {
        let made = units(&account, what);
        let places = places(what, kept, &made);
        let each_once: Vec<usize> = (places[0]..places[0] + places.len()).collect();
        assert_eq!(places, each_once, "{what}: each once and in order");
        assert!(places.len() >= 150, "{what}: {} units", places.len());
        assert_in_time(what, kept, &made, &places);
    }
    let log = edge.log();
    assert!(!log.contains("which is closed first"), "{log}");
}

#[test]
fn a_camera_with_one_session_is_closed_first_and_the_gap_is_told() {
    let camera = Camera::twin(1);
    let said = "which is closed first";
    let (mut edge, _operator, _broker) = move_camera(&camera, ["/main", "/sub"], said);
    let rows = edge.ls();
    let mut times: Vec<(i64, i64)> = rows
        .iter()
        .map(|row| ["start_ms", "end_ms"].map(|name| row[name].as_i64().expect("a time")).into())
        .collect();
    times.sort_unstable();
    let [(_, ended_ms), (began_ms, _)] = times[..] else { panic!("two files: {rows:#?}") };
    let in_gap = jiff::Timestamp::from_millisecond(i64::midpoint(ended_ms, began_ms));
    let at = in_gap.expect("a time").to_string();
    let told = edge.cli_ok(&["explain", KEY, "--at", &at, "--json"]);
    assert!(told.contains("could not be opened beside its old connection"), "at {at}: {told}");
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let gap_s = told_gap_s(told["reason"].as_str().expect("a reason"));

    let files = read_files(&mut edge, Some(Audio::Aac));
    let account = camera.account("encoder");
    for (what, kept) in [
        ("video", [&files[0].video, &files[1].video]),
        ("audio", [&files[0].audio, &files[1].audio]),
    ] {
        let made = units(&account, what);
        let [before, after] = kept.map(|units| places(what, units, &made));
        for places in [&before, &after] {
            assert!(places.windows(2).all(|two| two[1] == two[0] + 1), "{what}: {places:?}");
        }
        assert!(before.last() < after.first(), "{what}: nothing twice");
        let time = |place: &usize| made[*place]["pts"].as_i64().expect("a time") as f64 / 1e9;
        let [last, first] = [before.last(), after.first()].map(|place| time(place.expect("some")));
        let missing_s = first - last;
        // The ledger has when units came, and the first of the new connection are held for a while.
        assert!((missing_s - gap_s).abs() <= 2.0, "{what}: {missing_s} s, told are {gap_s} s");
        assert!(missing_s <= 15.0, "{what}: {missing_s} s are missing");
    }
}

#[test]
fn cameras_with_one_session_that_move_together_are_no_reason_to_go_back() {
    const NAMES: [&str; 3] = ["gate", "hall", "yard"];
    let cameras = NAMES.map(|_| Camera::twin(1));
    let broker = Broker::start();
    let mut operator = Operator::connect(broker.addr());
    let at = |revision, mount| {
        let url = |(name, camera): (&'static str, &Camera)| (name, camera.url(mount).to_string());
        let sources: Vec<(&str, String)> = NAMES.into_iter().zip(&cameras).map(url).collect();
        rules_of(revision, &sources, 1_800)
    };
    let _edge = start(&broker, &mut operator, &at(10, "/main"));
    hear_all_recorded(&operator, 10, 10, &NAMES);
    operator.send(TO_ALL, at(11, "/sub").to_string());
    cameras.iter().for_each(|camera| wait_for_pictures(camera, "/sub", 25));
    hear_all_recorded(&operator, 11, 11, &NAMES);
    assert_never_went_back(&operator);
}

#[test]
fn another_encoder_with_other_sound_follows_at_its_key_frame_without_a_gap() {
    // Two encoders, of which one has G.711 and the other AAC, so that a file begins with the move.
    let camera = Camera::start(4);
    let mounts = ["/endless", "/shared"];
    let (mut edge, _operator, _broker) = move_camera(&camera, mounts, GOES_ON);
    let files = read_files(&mut edge, None);
    assert_eq!(files.len(), 2, "other codecs begin a file");
    let mut shown = Vec::new();
    for (mount, file) in mounts.iter().zip(&files) {
        let account = camera.account(mount);
        let made = units(&account, "video");
        let places = places(mount, &file.video, &made);
        let clock = |place: usize| made[place]["clock"].as_i64().expect("a time") / 1_000_000;
        shown.push((clock(places[0]), clock(places[places.len() - 1])));
        assert!(places.windows(2).all(|two| two[1] == two[0] + 1), "{mount}: {places:?}");
        assert!(file.video.units[0].key);
    }
    let apart_ms = shown[1].0 - shown[0].1;
    // By the clock that both encoders have: the next picture, not one of those before or a later one.
    assert!((-40..=120).contains(&apart_ms), "{apart_ms} ms apart: {shown:?}");
}
