//! Uploads to the VOD platform. The stand-in for it is first shown to be right: the official
//! upload SDK works with it, and it refuses what is not signed as it should be.

mod support;

use std::fs;

use serde_json::json;
use support::fake_vod::{FakeVod, SECRET_KEY};
use support::scratch;

/// Bytes that are not all the same.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

#[test]
fn the_official_upload_sdk_works_with_the_stand_in() {
    let vod = FakeVod::start();
    let dir = scratch("sdk");
    let path = |name: &str| dir.path().join(name);
    for (name, len) in
        [("small.mp4", 5_000), ("big.flv", 3_500_000), ("seg0.ts", 9_400), ("seg1.ts", 800)]
    {
        fs::write(path(name), noise(len)).expect("written");
    }
    let playlist = "#EXTM3U\n#EXTINF:4.0,\nseg0.ts\n#EXTINF:4.0,\nseg1.ts\n#EXT-X-ENDLIST\n";
    fs::write(path("index.m3u8"), playlist).expect("written");
    for (name, objects) in [("small.mp4", 1), ("big.flv", 1), ("index.m3u8", 3)] {
        let request =
            json!({"MediaName": name, "SubAppId": 7, "SourceContext": "box", "ClassId": 3});
        let got = vod.upload_with_sdk(&path(name), SECRET_KEY, &request);
        let media = vod.media().pop().expect("committed");
        assert_eq!((&got["FileId"], &media["MediaName"]), (&media["FileId"], &json!(name)));
        assert_eq!((&media["SubAppId"], &media["ClassId"]), (&json!(7), &json!(3)));
        let stored = media["Objects"].as_array().expect("a list");
        assert_eq!(stored.len(), objects);
        let names = if objects == 1 { vec![name] } else { vec![name, "seg0.ts", "seg1.ts"] };
        for (object, name) in stored.iter().zip(names) {
            let bytes = vod.object(object.as_str().expect("a path")).expect("stored");
            assert!(bytes == fs::read(path(name)).expect("read"), "{name}");
        }
    }
    assert_eq!(vod.count("part"), 4, "parts of 1 MiB");
    assert!(vod.log().iter().all(|seen| seen.code.is_empty()), "{:#?}", vod.log());
}

#[test]
fn the_stand_in_believes_no_wrong_signature_and_no_old_credentials() {
    let vod = FakeVod::start();
    let dir = scratch("sdk");
    let file = dir.path().join("x.mp4");
    fs::write(&file, noise(100)).expect("written");
    let request = json!({"MediaName": "x"});
    let raised = vod.upload_with_sdk(&file, "another key", &request);
    assert!(raised["raised"].to_string().contains("AuthFailure.SignatureFailure"), "{raised}");
    vod.set("skew_s", 301);
    let raised = vod.upload_with_sdk(&file, SECRET_KEY, &request);
    assert!(raised["raised"].to_string().contains("AuthFailure.SignatureExpire"), "{raised}");
    vod.set("skew_s", 0);
    vod.set("life_s", -1);
    let raised = vod.upload_with_sdk(&file, SECRET_KEY, &request);
    assert!(raised["raised"].to_string().contains("ExpiredToken"), "{raised}");
    assert!(vod.media().is_empty(), "nothing came through");
}
