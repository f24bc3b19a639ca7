//! RTMP pushes end to end: real encoders and hostile clients against the listener, over TCP.
//! The reference is always the file that was sent, read by ffmpeg and not by us.

#[path = "rtmp_ingest/capture.rs"]
mod capture;
#[path = "rtmp_ingest/publisher.rs"]
mod publisher;
#[path = "rtmp_ingest/reference.rs"]
mod reference;
mod support;

use bytes::Bytes;
use edgerec::domain::sample::Codec;
use edgerec::ingest::intake::{EndCause, Refusal};
use edgerec::ingest::rtmp::CONNECTIONS_BEFORE_PUBLISH_MAX;
use edgerec::media::flv::tag::{HevcForm, audio_frame_head, config_head, video_frame_head};
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::capture::{Happened, Server, Stream};
use crate::publisher::{Publisher, raw};
use crate::reference::{Packet, make, packets, push, run};
use crate::support::ffmpeg::Ffmpeg;

/// Compares what a stream delivered with the packets of the file that was sent.
fn assert_same(stream: &Stream, reference: &[Packet]) {
    let got = stream.packets();
    assert!(!reference.is_empty(), "the reference has packets");
    for track in 1..=2 {
        let of = |packets: &[Packet]| -> Vec<Packet> {
            packets.iter().filter(|packet| packet.track == track).cloned().collect()
        };
        let (got, sent) = (of(&got), of(reference));
        for (number, (got, sent)) in got.iter().zip(&sent).enumerate() {
            assert_eq!(got, sent, "packet {number} of track {track}");
        }
        assert_eq!(got.len(), sent.len(), "packets of track {track}");
    }
}

/// Pushes a file made by `make_args` and compares; gives the stream for further looks.
async fn push_and_compare(make_args: &str) -> Stream {
    let dir = TempDir::new().expect("scratch");
    let file = dir.path().join("sent.flv");
    let server = Server::start().await;
    make(Ffmpeg::System, make_args, &file).await;
    push(Ffmpeg::System, &file, &server.url("s")).await;
    let stream = server.ended("s").await;
    assert_eq!(stream.end(), Some(EndCause::Finished));
    assert_same(&stream, &packets(Ffmpeg::System, &file).await);
    server.stop().await;
    stream
}

const VIDEO: &str = "-f lavfi -i testsrc=size=320x180:rate=25:duration=4,format=yuv420p";
const AUDIO: &str = "-f lavfi -i sine=frequency=440:sample_rate=44100:duration=4";

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_with_b_frames_and_aac() {
    let stream =
        push_and_compare(&format!("{VIDEO} {AUDIO} -c:v libx264 -bf 3 -g 25 -c:a aac")).await;
    let codecs: Vec<Codec> = stream.tracks().iter().map(|track| track.codec).collect();
    assert_eq!(codecs, [Codec::H264, Codec::Aac]);
    assert!(stream.packets().iter().any(|packet| packet.pts != packet.dts), "B-frames were sent");
    assert!(stream.script_data().starts_with(b"\x02\0\x0aonMetaData\x08"));
    assert!(
        matches!(stream.happened[..2], [Happened::ScriptData(_), Happened::Tracks(..)]),
        "one full set of tracks, before any sample"
    );
    let sets = stream.happened.iter().filter(|what| matches!(what, Happened::Tracks(..)));
    assert_eq!(sets.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_with_one_kind_only() {
    let video = push_and_compare(&format!("{VIDEO} -c:v libx264 -g 25")).await;
    assert_eq!(video.tracks().len(), 1);
    let audio = push_and_compare(&format!("{AUDIO} -c:a aac")).await;
    assert_eq!(audio.tracks().len(), 1);
    let g711 = push_and_compare(&format!("{AUDIO} -c:a pcm_mulaw -ar 8000 -ac 1")).await;
    assert_eq!(g711.tracks()[0].codec, Codec::PcmUlaw);
}

#[tokio::test(flavor = "multi_thread")]
async fn gstreamer_with_both_sinks() {
    for sink in ["rtmp2sink", "rtmpsink"] {
        let dir = TempDir::new().expect("scratch");
        let file = dir.path().join("sent.flv");
        let server = Server::start().await;
        let pipeline = format!(
            "gst-launch-1.0 -q flvmux name=m streamable=true ! tee name=t \
             t. ! queue ! {sink} location={} t. ! queue ! filesink location={} \
             videotestsrc num-buffers=100 ! video/x-raw,width=320,height=180,framerate=25/1 \
             ! x264enc key-int-max=25 bframes=2 ! h264parse ! m. \
             audiotestsrc num-buffers=170 ! audio/x-raw,rate=44100,channels=2 \
             ! avenc_aac ! aacparse ! m.",
            server.url("s"),
            file.display(),
        );
        run(&pipeline).await;
        let stream = server.ended("s").await;
        assert_same(&stream, &packets(Ffmpeg::System, &file).await);
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn enhanced_rtmp_brings_h265() {
    let dir = TempDir::new().expect("scratch");
    let file = dir.path().join("sent.flv");
    let server = Server::start().await;
    let args = format!(
        "{VIDEO} {AUDIO} -c:v libx265 -x265-params log-level=none:keyint=25:bframes=2 -c:a aac"
    );
    make(Ffmpeg::Newest, &args, &file).await;
    push(Ffmpeg::Newest, &file, &server.url("s")).await;
    let stream = server.ended("s").await;
    let codecs: Vec<Codec> = stream.tracks().iter().map(|track| track.codec).collect();
    assert_eq!(codecs, [Codec::H265, Codec::Aac]);
    assert_same(&stream, &packets(Ffmpeg::Newest, &file).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn h265_under_the_old_codec_id() {
    let server = Server::start().await;
    let mut publisher = Publisher::publish(&server, "s").await.expect("free");
    let config = include_bytes!("data/codec/x265-main.hvcc");
    let head = config_head(Codec::H265, HevcForm::Legacy).expect("video");
    publisher.session.send_video(0, [&head, config]);
    for number in 0..50u32 {
        let head = video_frame_head(Codec::H265, HevcForm::Legacy, number % 25 == 0, 40);
        publisher.session.send_video(number * 40, [&head, &[number as u8; 700]]);
    }
    publisher.finish().await;
    let stream = server.ended("s").await;
    let expected: Vec<Packet> = (0..50u32)
        .map(|number| {
            let (dts, key) = (i64::from(number) * 40, number % 25 == 0);
            Packet::new(1, dts, dts + 40, key, &[number as u8; 700])
        })
        .collect();
    assert_same(&stream, &expected);
    assert_eq!(stream.tracks()[0].config, Bytes::from_static(config));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_codecs_are_left_out_and_named() {
    let server = Server::start().await;
    let mut publisher = Publisher::publish(&server, "s").await.expect("free");
    publisher.session.send_video(0, [b"\x90av01\x81", &[]]);
    publisher.send_aac(0, 3).await;
    publisher.finish().await;
    let stream = server.ended("s").await;
    assert_eq!(stream.packets().len(), 3);
    assert_eq!(stream.left_out(), ["video av01"]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_publisher_is_refused_while_the_first_delivers() {
    let server = Server::start().await;
    let mut first = Publisher::publish(&server, "s").await.expect("free");
    first.send_aac(0, 1).await;
    server.samples("s", 0).await;
    let refused = Publisher::publish(&server, "s").await.expect_err("taken");
    assert!(refused.contains("NetStream.Publish.BadName"), "{refused}");
    first.send_aac(100, 5).await;
    first.finish().await;
    let stream = server.ended("s").await;
    assert_eq!((stream.packets().len(), stream.end()), (6, Some(EndCause::Finished)));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_publisher_gives_way_to_a_second() {
    let server = Server::start().await;
    let mut first = Publisher::publish(&server, "s").await.expect("free");
    first.send_aac(0, 1).await;
    server.samples("s", 0).await;
    server.clock.advance_ms(2_000);
    let mut second = Publisher::publish(&server, "s").await.expect("the first is silent");
    assert_eq!(server.stream("s", 0).end(), Some(EndCause::Replaced));
    assert!(first.closed().await.contains("replaced"), "the first hears why");
    second.send_aac(0, 2).await;
    second.finish().await;
    assert_eq!(server.ended_nth("s", 1).await.end(), Some(EndCause::Finished));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_sends_nothing_is_closed_after_ten_seconds() {
    let server = Server::start().await;
    let mut publisher = Publisher::publish(&server, "s").await.expect("free");
    let mut mute = TcpStream::connect(server.addr).await.expect("listening");
    let mut halfway = TcpStream::connect(server.addr).await.expect("listening");
    halfway.write_all(&[3; 800]).await.expect("taken");
    let started = std::time::Instant::now();
    let all = async {
        (publisher.closed().await, raw::closed(&mut mute).await, raw::closed(&mut halfway).await)
    };
    tokio::time::timeout(std::time::Duration::from_secs(13), all).await.expect("in time");
    assert!(started.elapsed().as_secs() >= 9, "not before");
    assert_eq!(server.ended("s").await.end(), Some(EndCause::Silent));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_box_can_end_a_stream_and_refuse_one() {
    let server = Server::start().await;
    let mut publisher = Publisher::publish(&server, "s").await.expect("free");
    publisher.send_aac(0, 1).await;
    server.samples("s", 0).await;
    server.cancel("s");
    assert!(publisher.closed().await.contains("NetStream.Publish.Failed"));
    assert_eq!(server.ended("s").await.end(), Some(EndCause::Cancelled));

    server.refuse(Some(Refusal::Unavailable("no ring".into())));
    let refused = Publisher::publish(&server, "t").await.expect_err("refused");
    assert!(refused.contains("no ring"), "{refused}");
    server.refuse(None);
    let refused = Publisher::publish(&server, "t?deny").await.expect_err("denied");
    assert!(refused.contains("NetStream.Publish.Denied"), "{refused}");
    Publisher::publish(&server, "t").await.expect("free, and all keys were given back");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_understands_a_refusal_and_an_end() {
    let dir = TempDir::new().expect("scratch");
    let file = dir.path().join("sent.flv");
    let server = Server::start().await;
    make(Ffmpeg::System, &format!("{VIDEO} -c:v libx264 -g 25"), &file).await;
    let push = |name: &str| {
        // In real time, so that it is still there to be told; it must fail, and soon.
        let url = server.url(name);
        let push = format!("ffmpeg -v quiet -re -i {} -c copy -f flv {url}", file.display());
        format!("timeout 20 {push}; code=$?; test $code -ne 0 && test $code -ne 124")
    };
    let ended = async {
        server.samples("ended", 0).await;
        server.cancel("ended");
    };
    let (pushed, denied) = (push("ended"), push("s?deny"));
    tokio::join!(run(&pushed), run(&denied), ended);
    assert_eq!(server.ended("ended").await.end(), Some(EndCause::Cancelled));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_connection_and_a_second_publish_on_one() {
    let server = Server::start().await;
    let mut publisher = Publisher::publish(&server, "s").await.expect("free");
    publisher.send_aac(0, 4).await;
    drop(publisher);
    let stream = server.ended("s").await;
    assert!(matches!(stream.end(), Some(EndCause::Disconnected(_))));
    assert_eq!(stream.packets().len(), 4, "all that came is kept");

    let mut publisher = Publisher::publish(&server, "first").await.expect("free");
    publisher.send_aac(0, 2).await;
    publisher.finish().await;
    publisher.write(&raw::message(20, &raw::publish("second"))).await;
    publisher.send_aac(0, 3).await;
    publisher.finish().await;
    assert_eq!(server.ended("first").await.packets().len(), 2);
    assert_eq!(server.ended("second").await.packets().len(), 3);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_ends_its_own_stream_only() {
    let server = Server::start().await;
    let mut other = Publisher::publish(&server, "other").await.expect("free");
    let mut bad = Publisher::publish(&server, "panic").await.expect("free");
    bad.send_aac(0, 1).await;
    bad.closed().await;
    other.send_aac(0, 2).await;
    other.finish().await;
    assert_eq!(server.ended("other").await.packets().len(), 2);
    Publisher::publish(&server, "panic").await.expect("the key was freed");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_clients_are_closed_and_harm_nobody() {
    let server = Server::start().await;
    let mut good = Publisher::publish(&server, "good").await.expect("free");
    good.send_aac(0, 1).await;
    let nested = [&b"\x02\0\x07connect\0\x3f\xf0\0\0\0\0\0\0"[..], &b"\x0a\0\0\0\x01".repeat(3000)];
    let mut many_streams = Vec::new();
    for id in 0..65_536u32 {
        many_streams.extend_from_slice(&[1, id as u8, (id >> 8) as u8]);
        many_streams.extend_from_slice(b"\0\0\0\0\0\0\x08\x01\0\0\0");
    }
    let attacks: Vec<Vec<u8>> = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 4000],
        raw::after_handshake(b"\xc5"),
        raw::after_handshake(b"\x04\0\0\0\xff\xff\xff\x09\x01\0\0\0"),
        raw::after_handshake(b"\x02\0\0\0\0\0\x04\x01\0\0\0\0\xff\xff\xff\xff"),
        raw::after_handshake(&raw::message(20, &nested.concat())),
        raw::after_handshake(&raw::message(20, b"\x0a\xff\xff\xff\xff")),
        raw::after_handshake(&many_streams),
    ];
    for (number, attack) in attacks.iter().enumerate() {
        let mut stream = TcpStream::connect(server.addr).await.expect("listening");
        // The server may close before it has read all.
        let _ = stream.write_all(attack).await;
        let seconds = raw::closed(&mut stream).await.as_secs();
        assert!(seconds < 5, "attack {number} was let be for {seconds} s");
    }
    good.send_aac(100, 1).await;
    good.finish().await;
    assert_eq!(server.ended("good").await.packets().len(), 2);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_beyond_the_sample_limit_ends_the_stream_with_a_reason() {
    let server = Server::start().await;
    let mut publisher = Publisher::publish(&server, "s").await.expect("free");
    let head = video_frame_head(Codec::H264, HevcForm::Enhanced, true, 0);
    publisher.session.send_video(0, [&head, &vec![0; 9 << 20]]);
    assert!(publisher.closed().await.contains("in progress"));
    let end = server.ended("s").await.end();
    assert!(matches!(&end, Some(EndCause::Faulty(why)) if why.contains("in progress")), "{end:?}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_of_one_byte_are_slow_but_legal() {
    let server = Server::start().await;
    let mut publisher = Publisher::publish(&server, "s").await.expect("free");
    let size_one = raw::message(1, &[0, 0, 0, 1]);
    publisher.write(&size_one).await;
    let config = [&audio_config_head()[..], &[0x12, 0x10]].concat();
    publisher.write(&raw::in_chunks_of_one(8, &config)).await;
    let frame = [&audio_frame_head(Codec::Aac, 2)[..], &[9; 5000]].concat();
    publisher.write(&raw::in_chunks_of_one(8, &frame)).await;
    publisher.write(&raw::in_chunks_of_one(20, &raw::delete_stream())).await;
    let stream = server.ended("s").await;
    assert_eq!(stream.packets(), [Packet::new(2, 0, 0, true, &[9; 5000])]);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_waits_while_too_many_connections_are_idle() {
    let server = Server::start().await;
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS_BEFORE_PUBLISH_MAX {
        idle.push(TcpStream::connect(server.addr).await.expect("listening"));
    }
    let mut publish = Box::pin(Publisher::publish(&server, "s"));
    let early = tokio::time::timeout(std::time::Duration::from_millis(300), publish.as_mut());
    assert!(early.await.is_err(), "accepted beside {} others", idle.len());
    idle.pop();
    publish.await.expect("its turn has come");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encoders_may_all_connect_in_the_same_instant() {
    let server = Server::start().await;
    let publish = |number| {
        let server = &server;
        async move { Publisher::publish(server, &format!("s{number}")).await.map(drop) }
    };
    let published = join_all((0..2 * CONNECTIONS_BEFORE_PUBLISH_MAX).map(publish)).await;
    let refused: Vec<_> = published.into_iter().filter_map(Result::err).collect();
    assert!(refused.is_empty(), "{} were refused: {:?}", refused.len(), refused[0]);
    server.stop().await;
}

fn audio_config_head() -> Vec<u8> {
    config_head(Codec::Aac, HevcForm::Enhanced).expect("AAC has one").to_vec()
}
