//! A ring that is full of what nobody has fetched: the policy of the ring, and of each source, says
//! what goes and what stays; what goes is in one ledger, what is not recorded in the other.

mod support;

use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use serde_json::json;
use support::broker::free_addr;
use support::edge_box::{BoxPlan, EdgeBox, record_all};
use support::media::Clip;
use support::packets::{Kind, assert_stretch_of, of_kind, packets};
use support::push::{Pace, push_file};
use support::s3_server::{ACCESS_KEY, BUCKET, SECRET_KEY};
use support::wait::wait_until;

const SOON: Duration = Duration::from_secs(60);
/// Ten of the 1 MiB slots of a ring that has about thirty.
const CLIP: Clip =
    Clip { seconds: 20, fps: 25, gop: 25, b_frames: 0, video_kbps: 4_000, audio: true };
const PICTURE_MS: i64 = 40;
/// A fragment that has sound only has no picture to miss.
const FRAGMENT_MS: i64 = 1_000;

/// A box whose target is away, with one camera that says for itself what happens when the ring is
/// full. The camera cannot be reached; an encoder sends under its name.
fn full_box(ring: &str, camera: &str, of_camera: &str) -> EdgeBox {
    let mut rules = record_all(&["Flv"]);
    rules["sources"] = json!([{"DomainName": "127.0.0.1", "AppName": "live", "StreamName": camera,
        "Url": "rtsp://192.0.2.1/main", "OnFull": of_camera}]);
    let upload = format!(
        "[upload]\ntarget = \"s3\"\nendpoint = \"http://{}\"\nbucket = \"{BUCKET}\"\n\
         access_key_id = \"{ACCESS_KEY}\"\nsecret_access_key = \"{SECRET_KEY}\"\n",
        free_addr()
    );
    let plan = BoxPlan::default().rules(rules).sections(&upload);
    let plan = plan.ring_setting("capacity", "\"40MiB\"").ring_setting("slot", "\"1MiB\"");
    plan.ring_setting("on_full", &format!("\"{ring}\"")).start()
}

/// Records a stream to its end.
fn record(edge: &EdgeBox, stream: &str) {
    let log = edge.dir().join(format!("{stream}.log"));
    push_file(&CLIP.flv(), &edge.push_url(stream), Pace::Times(4), &log).finish_within(SOON);
    wait_until(SOON, "it is on flash", || {
        let rows = edge.ls();
        rows.iter().all(|row| row["stream"] != stream || row["state"] != "recording")
    });
}

/// Pictures of a stream that are kept, of those that were sent.
fn pictures(edge: &EdgeBox, stream: &str) -> (usize, usize) {
    let sent = packets(&CLIP.flv());
    let Ok(kept) = edge.export_all(&edge.stream_key(stream), "flv", &format!("{stream}.flv"))
    else {
        return (0, of_kind(&sent, Kind::Video).len());
    };
    let kept = packets(&kept);
    assert_stretch_of(&kept, &sent, stream);
    (of_kind(&kept, Kind::Video).len(), of_kind(&sent, Kind::Video).len())
}

/// What a query of the catalog finds: stream and milliseconds.
fn ledger(edge: &EdgeBox, query: &str) -> Vec<(String, i64)> {
    let path = edge.ring().join("state.db");
    let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).expect("opens");
    let mut query = db.prepare(query).expect("the ledger is there");
    let rows = query.query_map([], |row| Ok((row.get(0)?, row.get(1)?)));
    rows.expect("asked").collect::<rusqlite::Result<_>>().expect("read")
}

/// Files that were lost, by their streams.
fn losses(edge: &EdgeBox) -> Vec<String> {
    let query = "SELECT stream.stream, loss.media_ms FROM loss JOIN file ON file.id = loss.file
                 JOIN stream ON stream.id = file.stream ORDER BY loss.id";
    ledger(edge, query).into_iter().map(|(stream, _)| stream).collect()
}

/// What found no room in the ring; all of it is over.
fn gaps(edge: &EdgeBox) -> Vec<(String, i64)> {
    let of = |open: &str| {
        format!(
            "SELECT stream.stream, media_ms FROM gap JOIN stream ON stream.id = gap.stream
             WHERE cause = 'the ring was full of what must stay' {open} ORDER BY gap.id"
        )
    };
    let query = of("AND until_ms IS NULL");
    wait_until(SOON, "the gaps are over", || ledger(edge, &query).is_empty());
    ledger(edge, &of(""))
}

#[test]
fn a_source_that_keeps_outlives_a_ring_that_overwrites() {
    let edge = full_box("overwrite_oldest", "kept", "keep_undelivered");
    let streams = ["kept", "a", "b", "c", "d"];
    streams.iter().for_each(|stream| record(&edge, stream));
    assert_eq!(gaps(&edge), [], "there was room for all that came");
    let (kept, sent) = pictures(&edge, "kept");
    assert_eq!(kept, sent, "what is to be kept is kept");
    let cut = |stream: &&str| {
        let (kept, sent) = pictures(&edge, stream);
        kept < sent
    };
    let cut: Vec<&str> = streams.into_iter().filter(cut).collect();
    assert!(cut.starts_with(&["a", "b"]), "the oldest of the others went: {cut:?}");
    assert_eq!(losses(&edge), cut);
}

#[test]
fn a_source_that_is_overwritten_makes_room_in_a_ring_that_keeps() {
    let edge = full_box("keep_undelivered", "loose", "overwrite_oldest");
    let streams = ["loose", "a", "b", "c", "d"];
    streams.iter().for_each(|stream| record(&edge, stream));
    let missing_ms = streams.map(|stream| {
        let (kept, sent) = pictures(&edge, stream);
        i64::try_from(sent - kept).expect("few") * PICTURE_MS
    });
    let [loose, a, b, c, d] = missing_ms;
    assert!(loose > 0, "its place went to the others");
    assert_eq!(losses(&edge), ["loose"], "nothing else went");
    assert_eq!([a, b], [0, 0], "there was room for them");
    // What found no room is one gap a stream, as long as what is missing.
    let gaps = gaps(&edge);
    let named: Vec<&str> = gaps.iter().map(|(stream, _)| &**stream).collect();
    assert_eq!(named, ["c", "d"], "{gaps:?}");
    for ((stream, gap_ms), missing_ms) in gaps.iter().zip([c, d]) {
        let fault_ms = (gap_ms - missing_ms).abs();
        assert!(
            fault_ms <= FRAGMENT_MS,
            "{stream}: {gap_ms} ms in the ledger, {missing_ms} missing"
        );
    }
}
