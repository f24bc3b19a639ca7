//! Files by the VOD API over a ring with real recordings: what is found is what was recorded, page
//! by page, and a deleted file is gone for good while others keep the media they share with it.

mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use edgerec::api::cloud::CloudDesk;
use edgerec::api::cloud::media::describe_vod_play_info;
use edgerec::api::cloud::streams::{Cut, LiveEntry, LiveStreams};
use edgerec::api::control::BoxKnowledge;
use edgerec::api::report::Transfer;
use edgerec::api::signed_url;
use edgerec::domain::matching::Decision;
use edgerec::domain::secret::Secret;
use edgerec::domain::service::Refusal;
use edgerec::domain::service::limits::ServiceLimits;
use edgerec::domain::stream_key::StreamKey;
use edgerec::platform::clock::{Clock, SystemClock};
use edgerec::ring::catalog::files::{Confirmed, FileRecord};
use edgerec::ring::handle::{Ring, RingThreads};
use edgerec::wire::cloud::envelope::ActionRequest;
use rusqlite::{Connection, params};
use serde_json::{Map, Value, json};

use support::edge_box::record_all;
use support::media::Clip;
use support::recorded_ring::{BEGAN_MS, Recording, Sent, open, wait_durable};
use support::scratch;

const SMALL: Clip =
    Clip { seconds: 4, fps: 25, gop: 25, b_frames: 0, video_kbps: 300, audio: true };
const HOST: &str = "box.example:8080";

fn make_ring(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("ring");
    let identity = edgerec::ring::identity::RingIdentity::plan(&path, 64 << 20, 4 << 20);
    let flash = edgerec::platform::flash::SystemFlash;
    identity.expect("a plan").create(&flash, &path).expect("made");
    path
}

/// Nothing is live: files are what is looked at.
struct NoneLive;

impl LiveStreams for NoneLive {
    fn live(&self) -> Vec<LiveEntry> {
        Vec::new()
    }

    fn decision(&self, _: &StreamKey) -> Option<Decision> {
        None
    }

    fn restart(&self, _: &StreamKey) -> bool {
        false
    }

    fn cut(&self, _: &dyn Fn(&StreamKey) -> bool, _: Cut) -> usize {
        0
    }
}

impl BoxKnowledge for NoneLive {
    fn decision(&self, _: &StreamKey) -> Option<Decision> {
        None
    }

    fn transfer(&self, _: &FileRecord) -> Option<Transfer> {
        None
    }
}

async fn desk(ring: &Arc<Ring>, key: Option<&str>) -> CloudDesk {
    CloudDesk {
        service: ring.catalog.call(|state| Ok(state.service())).await.expect("the service"),
        known: Arc::new(NoneLive),
        online: Arc::new(NoneLive),
        push_key: Secret::default(),
        ring: ring.clone(),
        clock: Arc::new(SystemClock::new()),
        limits: ServiceLimits::default(),
        key: key.map(Secret::new),
    }
}

fn request(action: &str, parameters: Value) -> ActionRequest {
    let Value::Object(parameters) = parameters else { panic!("an object") };
    let host = Some(HOST.to_owned());
    ActionRequest { action: action.to_owned(), version: None, region: None, host, parameters }
}

async fn act(
    desk: &CloudDesk,
    action: &str,
    parameters: Value,
) -> Result<Map<String, Value>, Refusal> {
    desk.act(request(action, parameters)).await
}

/// The media that a search finds.
async fn found(desk: &CloudDesk, parameters: Value) -> Vec<Value> {
    let answer = act(desk, "SearchMedia", parameters).await.expect("answered");
    answer["MediaInfoSet"].as_array().expect("a list").clone()
}

fn id(media: &Value) -> &str {
    media["FileId"].as_str().expect("an id")
}

/// Blocking work beside a runtime.
fn record(ring: &Arc<Ring>, key: &str, formats: &[&str], number: u64, sent: &Sent) {
    let mut recording = Recording::begin(ring, &record_all(formats), key, number);
    recording.feed(ring, sent);
    recording.end(ring);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("a runtime")
}

#[test]
fn what_was_recorded_is_found_told_and_deleted() {
    let dir = scratch("media");
    let (ring, threads) = open(&make_ring(dir.path()));
    let sent = Sent::of_flv(&SMALL.flv());
    record(&ring, "cams/live/gate", &["Mp4", "Hls", "Aac"], 1, &sent);
    let mut growing = Recording::begin(&ring, &record_all(&["Mp4"]), "cams/live/hall", 2);
    growing.feed(&ring, &sent);
    let hall = "cams/live/hall".parse().expect("a key");
    wait_durable(&ring, &hall, 2_000);
    let runtime = runtime();
    runtime.block_on(async {
        let desk = desk(&ring, None).await;
        let all = found(&desk, json!({})).await;
        let types: BTreeSet<&str> =
            all.iter().filter_map(|media| media["BasicInfo"]["Type"].as_str()).collect();
        assert_eq!(types, BTreeSet::from(["aac", "m3u8", "mp4"]), "none of the growing file");
        told(&desk, &all).await;
        growing_files_are_none(&desk, &ring).await;
        deleted(&desk, &ring, &all).await;
    });
    growing.end(&ring);
    runtime.block_on(async {
        let desk = desk(&ring, None).await;
        let hall = found(&desk, json!({"StreamIds": ["hall"]})).await;
        assert_eq!(hall.len(), 1, "it is media now that it is finished");
        assert_eq!(found(&desk, json!({"NamePrefixes": ["gate_"]})).await.len(), 2);
    });
    threads.close(&ring);
}

/// What is told of each file.
async fn told(desk: &CloudDesk, all: &[Value]) {
    let mp4 = all.iter().find(|media| media["BasicInfo"]["Type"] == "mp4").expect("an MP4");
    let basic = &mp4["BasicInfo"];
    let name = basic["Name"].as_str().expect("a name");
    // 2027-01-15T08:00:00Z is 16:00 where names are made.
    assert!(name.starts_with("gate_2027-01-15-16-00-00_2027-01-15-16-00-0"), "{name}");
    assert_eq!(basic["MediaUrl"], format!("http://{HOST}/files/{}", id(mp4)));
    assert_eq!(basic["ExpireTime"], "9999-12-31T23:59:59Z");
    assert_eq!(basic["SourceInfo"]["SourceType"], "Record");
    let live = &basic["SourceInfo"]["LiveRecordInfo"];
    assert_eq!(
        (&live["Domain"], &live["Path"], &live["StreamId"], &live["RecordStartTime"]),
        (&json!("cams"), &json!("live"), &json!("gate"), &json!("2027-01-15T08:00:00Z"))
    );
    assert_eq!(basic["CreateTime"], live["RecordEndTime"]);
    let meta = &mp4["MetaData"];
    let seconds = meta["Duration"].as_f64().expect("a number");
    assert!((seconds - f64::from(SMALL.seconds)).abs() < 0.2, "{seconds}");
    assert_eq!(meta["VideoStreamSet"][0]["Codec"], "h264");
    assert_eq!(meta["AudioStreamSet"][0]["Codec"], "aac");
    assert!(meta["Size"].as_u64().expect("a size") > 10_000 && mp4["TranscodeInfo"].is_null());
    let aac = found(desk, json!({"Categories": ["Audio"]})).await;
    assert_eq!((aac.len(), &aac[0]["BasicInfo"]["Type"]), (1, &json!("aac")));
    assert_eq!(aac[0]["MetaData"]["VideoStreamSet"], json!([]));
    assert_eq!(found(desk, json!({"MediaTypes": ["hls", "MP4"]})).await.len(), 2);

    let only = found(desk, json!({"FileIds": [id(mp4)], "Filters": ["metaData"]})).await;
    assert_eq!(only.len(), 1);
    assert!(only[0]["BasicInfo"].is_null() && only[0]["MetaData"].is_object());
    let asked = json!({"FileIds": [id(mp4), "7", id(mp4), "x"]});
    let answer = act(desk, "DescribeMediaInfos", asked).await.expect("answered");
    assert_eq!(answer["MediaInfoSet"], json!([mp4]));
    assert_eq!(answer["NotExistFileIdSet"], json!(["7", "x"]));
    for (parameters, code) in [
        (json!({}), "MissingParameter"),
        (json!({"FileIds": []}), "InvalidParameterValue.FileIdsEmpty"),
        (json!({"FileIds": vec!["7"; 21]}), "InvalidParameterValue.FileIdsOverLimit"),
        (json!({"FileIds": ["7"], "Fields": []}), "UnknownParameter"),
    ] {
        let refused = act(desk, "DescribeMediaInfos", parameters.clone()).await;
        assert_eq!(refused.expect_err("refused").code, code, "{parameters}");
    }
}

/// A file is no media while it grows, and cannot be deleted.
async fn growing_files_are_none(desk: &CloudDesk, ring: &Arc<Ring>) {
    let files = ring.catalog.call(|state| state.files()).await.expect("listed");
    let file = files.iter().find(|file| file.key.stream() == "hall").expect("it grows").id;
    let file = file.to_string();
    let asked = json!({"FileIds": [file]});
    let answer = act(desk, "DescribeMediaInfos", asked).await.expect("answered");
    assert_eq!(answer["NotExistFileIdSet"], json!([file]));
    let refused = act(desk, "DeleteMedia", json!({"FileId": file})).await;
    assert_eq!(refused.expect_err("it grows").code, "FailedOperation");
}

/// Deletes one of the files that share their media.
async fn deleted(desk: &CloudDesk, ring: &Arc<Ring>, all: &[Value]) {
    let of = |kind: &str| {
        let media = all.iter().find(|media| media["BasicInfo"]["Type"] == kind);
        id(media.expect("one of each")).to_owned()
    };
    let (mp4, hls) = (of("mp4"), of("m3u8"));
    for (parameters, code) in [
        (json!({}), "MissingParameter"),
        (json!({"FileId": "7"}), "ResourceNotFound"),
        (json!({"FileId": "x"}), "ResourceNotFound"),
        (json!({"FileId": format!("0{mp4}")}), "ResourceNotFound"),
        (json!({"FileId": mp4, "DeleteParts": [{}]}), "MissingParameter"),
        (
            json!({"FileId": mp4, "DeleteParts": [{"Type": "TranscodeFiles", "Definition": 10}]}),
            "ResourceNotFound",
        ),
    ] {
        let refused = act(desk, "DeleteMedia", parameters.clone()).await;
        assert_eq!(refused.expect_err("refused").code, code, "{parameters}");
    }
    let original =
        json!({"FileId": mp4, "SubAppId": 1, "DeleteParts": [{"Type": "OriginalFiles"}]});
    assert!(act(desk, "DeleteMedia", original).await.expect("deleted").is_empty());
    let again = act(desk, "DeleteMedia", json!({"FileId": mp4})).await;
    assert_eq!(again.expect_err("gone").code, "ResourceNotFound");
    let left = found(desk, json!({})).await;
    assert_eq!(left.len(), 2);
    assert!(left.iter().all(|media| id(media) != mp4));

    let clip = |file: String| {
        let ring = ring.clone();
        tokio::task::spawn_blocking(move || {
            let file = edgerec::domain::ids::FileId(file.parse().expect("an id"));
            ring.open_whole_file_clip(file).map(|_| ())
        })
    };
    assert!(clip(mp4).await.expect("ran").is_err(), "its media is nobody's to read");
    clip(hls).await.expect("ran").expect("the other file has all of its media");
}

#[test]
fn a_deleted_file_does_not_come_back_with_a_crash() {
    let dir = scratch("media");
    let path = make_ring(dir.path());
    let sent = Sent::of_flv(&SMALL.flv());
    let (ring, threads) = open(&path);
    record(&ring, "cams/live/gate", &["Mp4", "Flv"], 1, &sent);
    let runtime = runtime();
    let left = runtime.block_on(async {
        let desk = desk(&ring, None).await;
        let all = found(&desk, json!({})).await;
        assert_eq!(all.len(), 2);
        let gone = json!({"FileId": id(&all[0])});
        act(&desk, "DeleteMedia", gone).await.expect("deleted");
        id(&all[1]).to_owned()
    });
    // The slot is still open, so what comes next reads it as after a crash.
    threads.close(&ring);
    drop(ring);
    let (ring, threads) = open(&path);
    runtime.block_on(async {
        let desk = desk(&ring, None).await;
        let all = found(&desk, json!({})).await;
        assert_eq!(all.iter().map(id).collect::<Vec<_>>(), [left.as_str()]);
    });
    threads.close(&ring);
}

#[test]
fn addresses_are_signed_where_a_secret_is_set_and_lead_to_where_http_reaches() {
    let dir = scratch("media");
    let (ring, threads) = open(&make_ring(dir.path()));
    record(&ring, "cams/live/gate", &["Mp4"], 1, &Sent::of_flv(&SMALL.flv()));
    runtime().block_on(async {
        let secret = desk(&ring, Some("canary")).await;
        let media = found(&secret, json!({})).await;
        let url = media[0]["BasicInfo"]["MediaUrl"].as_str().expect("an address");
        let rest = url.strip_prefix(&format!("http://{HOST}")).expect("of this box");
        let (path, query) = rest.split_once('?').expect("signed");
        assert_eq!(path, format!("/files/{}", id(&media[0])));
        let (key, now) = (Secret::new("canary"), SystemClock::new().now().wall);
        let until = signed_url::verify(&key, path, Some(query), now).expect("it opens");
        let hours = (until - u64::try_from(now.unix.0 / 1_000).expect("after 1970")) / 3_600;
        assert!((5..=6).contains(&hours), "{hours} h");

        let id = id(&media[0]).parse().map(edgerec::domain::ids::FileId).expect("an id");
        for (delivered, told) in [
            ("https://s3.example/b/a.mp4", "https://s3.example/b/a.mp4".to_owned()),
            ("file:///media/usb/a.mp4", format!("http://{HOST}/files/{id}")),
        ] {
            let (size, sha256, target_file_id) = (5, "00", None);
            let confirmed = Confirmed { url: delivered, size, sha256, target_file_id };
            let call = ring.catalog.call(move |state| state.delivered(id, confirmed));
            call.await.expect("entered");
            let media = found(&desk(&ring, None).await, json!({})).await;
            assert_eq!(media[0]["BasicInfo"]["MediaUrl"], told);
        }
        let mut odd = request("SearchMedia", json!({}));
        odd.host = Some("evil\" onclick=\"x".to_owned());
        let answer = desk(&ring, None).await.act(odd).await.expect("answered");
        let url = &answer["MediaInfoSet"][0]["BasicInfo"]["MediaUrl"];
        assert_eq!(*url, format!("/files/{id}"));
    });
    threads.close(&ring);
}

/// Rows as ten thousand recordings would have left them: a minute each, `cam0` to `cam9` in turn.
fn fill(path: &Path, files: i64) {
    let mut db = Connection::open(path.join("state.db")).expect("opens");
    let transaction = db.transaction().expect("begun");
    for at in 0..files {
        let (stream, start) = (100 + at % 10, BEGAN_MS + 60_000 * at);
        transaction
            .execute(
                "INSERT OR IGNORE INTO stream (id, domain, app, stream)
                 VALUES (?1, 'cams', 'live', ?2)",
                params![stream, format!("cam{}", at % 10)],
            )
            .expect("a stream");
        transaction
            .execute(
                "INSERT INTO file (id, recording, stream, session, format, state, first_sequence,
                 start_boot_ms, start_ms, trusted, end_ms, media_start_ms, duration_ms, storage_s,
                 name_pattern, size, url, queue_number)
                 VALUES (?1, 1, ?2, 1, ?3, 4, 0, 0, ?4, 1, ?4 + 60000, 0, 60000, 0, '', 1000,
                 'https://s3.example/x', ?1)",
                params![at + 1, stream, at % 4, start],
            )
            .expect("a file");
    }
    transaction.commit().expect("committed");
}

/// A ring with ten thousand files.
fn full_ring(dir: &Path) -> (Arc<Ring>, RingThreads) {
    let path = make_ring(dir);
    let (ring, threads) = open(&path);
    threads.close(&ring);
    drop(ring);
    fill(&path, 10_000);
    open(&path)
}

#[test]
fn ten_thousand_files_are_searched_page_by_page() {
    let dir = scratch("media");
    let (ring, threads) = full_ring(dir.path());
    runtime().block_on(async {
        let desk = desk(&ring, None).await;
        let answer = act(&desk, "SearchMedia", json!({})).await.expect("answered");
        assert_eq!(answer["TotalCount"], 5_000);
        let ids = |answer: &Map<String, Value>| -> Vec<String> {
            let media = answer["MediaInfoSet"].as_array().expect("a list");
            media.iter().map(|media| id(media).to_owned()).collect()
        };
        let newest: Vec<String> = (9_991..=10_000).rev().map(|n: u32| n.to_string()).collect();
        assert_eq!(ids(&answer), newest, "ten, the newest first");

        // Names begin at 16:00 in UTC+8; the first file of each camera began within ten minutes.
        let sort = json!({"Field": "CreateTime", "Order": "Asc"});
        let mut seen = Vec::new();
        for page in 0..4 {
            let asked = json!({"NamePrefixes": ["cam3_"], "Offset": page * 300, "Limit": "300",
                               "Sort": sort});
            let answer = act(&desk, "SearchMedia", asked).await.expect("answered");
            assert_eq!(answer["TotalCount"], 1_000);
            seen.extend(ids(&answer));
        }
        let wanted: Vec<String> = (0..1_000).map(|n: u32| (10 * n + 4).to_string()).collect();
        assert_eq!(seen, wanted, "each once, the oldest first");
        let asked = json!({"Names": ["CAM3_2027-01-15-16-03"], "StreamPaths": ["live"]});
        assert_eq!(ids(&act(&desk, "SearchMedia", asked).await.expect("answered")), ["4"]);

        let second = json!({"fileName": "cam3_", "pageNo": "2"});
        let second = request("DescribeVodPlayInfo", second);
        let answer = describe_vod_play_info(&desk, &second).await;
        assert_eq!((&answer["code"], &answer["totalCount"]), (&json!(0), &json!("1000")));
        let files = answer["fileSet"].as_array().expect("files");
        let first = &files[0];
        assert_eq!((files.len(), &first["fileId"]), (20, &json!("9794")));
        assert_eq!((&first["duration"], &first["status"]), (&json!(60), &json!("2")));
        assert_eq!(first["playSet"][0]["url"], "https://s3.example/x");
        for bad in [
            json!({}),
            json!({"fileName": ""}),
            json!({"fileName": "x", "pageSize": 101}),
            json!({"fileName": "x", "pageNo": "0"}),
        ] {
            let answer =
                describe_vod_play_info(&desk, &request("DescribeVodPlayInfo", bad.clone())).await;
            assert_eq!((&answer["code"], &answer["fileSet"]), (&json!(4_000), &json!([])), "{bad}");
        }
    });
    threads.close(&ring);
}

#[test]
fn the_catalog_is_free_for_others_while_files_are_searched() {
    let dir = scratch("media");
    let (ring, threads) = full_ring(dir.path());
    let runtime = runtime();
    let searching = runtime.spawn({
        let ring = ring.clone();
        async move { found(&desk(&ring, None).await, json!({"Names": ["nowhere"]})).await }
    });
    // Others are answered between two pages: many times before the search is over.
    let (mut answered, deadline) = (0, Instant::now() + Duration::from_secs(60));
    while !searching.is_finished() {
        assert!(Instant::now() < deadline, "the search does not end");
        ring.catalog.call_blocking(|_| Ok(())).expect("answered");
        answered += 1;
    }
    assert!(answered >= 10, "{answered}");
    assert!(runtime.block_on(searching).expect("ran").is_empty());
    threads.close(&ring);
}
