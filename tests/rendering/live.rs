//! A live stream over HTTP: what a client gets is every packet from a key frame on.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use edgerec::api::http::{Access, HttpServer};
use edgerec::api::live::LiveDesk;
use edgerec::domain::stream_key::StreamKey;
use edgerec::media::clip::ClipSource;
use edgerec::media::fmp4::{init_segment, parse_moof};
use edgerec::platform::clock::SystemClock;
use edgerec::platform::net::SystemNet;
use edgerec::ring::live_hub::{LiveHub, LivePiece};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clip::MemoryClip;
use crate::media::{Source, in_track_order, probe};
use crate::{assert_packets, expected, rtmp, source, verbatim};

const SOON: Duration = Duration::from_secs(20);

/// The fragments of a clip as the recorder has them.
fn pieces(source: &Source) -> Vec<LivePiece> {
    let clip = MemoryClip::new(source);
    let init = Bytes::from(init_segment(&source.tracks));
    let piece = |fragment| {
        let mut head = clip.moof(fragment).unwrap();
        let moof = parse_moof(&head).unwrap();
        let len = u32::try_from(moof.payload_len()).unwrap();
        head.extend_from_slice(&(len + 8).to_be_bytes());
        head.extend_from_slice(b"mdat");
        let mut payload = vec![0; len as usize];
        clip.read_payload(fragment, 0, &mut payload).unwrap();
        let is_video = |id| source.tracks.iter().any(|track| track.id == id && track.is_video());
        let pictures = moof.runs.iter().find(|run| is_video(run.track));
        let key = pictures.and_then(|run| run.samples.first()).is_some_and(|first| first.key);
        let payload = vec![Bytes::from(payload)];
        LivePiece { init: init.clone(), key, head: head.into(), payload }
    };
    (0..clip.fragment_count()).map(piece).collect()
}

async fn serve(hub: &Arc<LiveHub>) -> (SocketAddr, CancellationToken) {
    let local = SocketAddr::from(([127, 0, 0, 1], 0));
    let server = HttpServer::bind(&SystemNet, local, Access::Loopback).await.unwrap();
    let (addr, shutdown) = (server.local_addr().unwrap(), CancellationToken::new());
    let desk = LiveDesk::new(hub.clone(), Arc::new(SystemClock::new()), None);
    tokio::spawn(server.run(desk.routes(), TaskTracker::new(), shutdown.clone()));
    (addr, shutdown)
}

/// The body of the answer to an HTTP/1.0 client, which gets it without chunks.
async fn watch(addr: SocketAddr, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: {addr}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.0 200"), "{}", String::from_utf8_lossy(&head));
    stream
}

#[tokio::test]
async fn a_viewer_gets_every_packet_from_a_key_frame_to_the_end() {
    for name in ["b-frames", "hevc"] {
        let source = rtmp(&source(name), 3_600_000);
        let hub = Arc::new(LiveHub::default());
        let (addr, shutdown) = serve(&hub).await;
        let key = StreamKey::new("cams", "live", "gate").unwrap();
        let stream = hub.begin(key);
        let pieces = pieces(&source);
        // The first fragment came before the viewer did; the second is no key fragment.
        assert!(pieces[0].key && !pieces[1].key && pieces[2].key);
        stream.publish(|| pieces[0].clone());
        let mut viewer = watch(addr, "/live/cams/live/gate.mp4").await;
        let mut bytes = Vec::new();
        for (at, piece) in pieces.iter().enumerate().skip(1) {
            stream.publish(|| piece.clone());
            let init = if at == 2 { piece.init.len() } else { 0 };
            let expected = init + piece.head.len() + piece.payload[0].len();
            let mut got = vec![0; if at == 1 { 0 } else { expected }];
            let read = tokio::time::timeout(SOON, viewer.read_exact(&mut got));
            read.await.expect("sent at once").unwrap();
            bytes.extend(got);
        }
        drop(stream);
        let mut rest = Vec::new();
        tokio::time::timeout(SOON, viewer.read_to_end(&mut rest)).await.expect("ends").unwrap();
        assert!(rest.is_empty());
        shutdown.cancel();

        let skipped = samples_of(&pieces[..2]);
        let mut sent = source.clone();
        for track in &source.tracks {
            let of_track = skipped.iter().filter(|id| **id == track.id).count();
            let mut left = of_track;
            sent.samples.retain(|sample| {
                let skip = sample.track == track.id && left > 0;
                left -= usize::from(skip);
                !skip
            });
        }
        let seen = in_track_order(probe(&bytes, "mp4", &[]), &sent);
        assert_packets(name, &seen, &expected(&sent, |ticks, _| ticks, verbatim));
    }
}

/// The track of each sample.
fn samples_of(pieces: &[LivePiece]) -> Vec<edgerec::domain::sample::TrackId> {
    let runs = pieces.iter().flat_map(|piece| parse_moof(&piece.head).unwrap().runs);
    runs.flat_map(|run| vec![run.track; run.samples.len()]).collect()
}
