//! Cameras that real servers do not play: scripted over a socket, down to the RTP packet.

#[path = "support/camera.rs"]
mod camera;

use std::sync::Arc;
use std::time::Duration;

use edgerec::domain::sample::{Codec, TrackId};
use edgerec::domain::source::Transport;
use edgerec::domain::stream_key::StreamKey;
use edgerec::ingest::admission::Admission;
use edgerec::ingest::intake::EndCause;
use edgerec::ingest::rtsp::pull;
use edgerec::platform::clock::{Clock, SystemClock};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use camera::{Capture, Event, Stream};

const LIMIT: Duration = Duration::from_secs(60);

/// What the script gives for a request: head lines after the status line, and bytes that follow.
struct Answer {
    status: &'static str,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn ok(head: &str) -> Answer {
        Answer { status: "200 OK", head: head.to_owned(), body: Vec::new() }
    }

    fn refuse(status: &'static str, head: &str) -> Answer {
        Answer { status, head: head.to_owned(), body: Vec::new() }
    }

    fn sdp(sdp: &str) -> Answer {
        let head = format!("Content-Type: application/sdp\r\nContent-Length: {}\r\n", sdp.len());
        Answer { status: "200 OK", head, body: sdp.as_bytes().to_vec() }
    }

    fn then(mut self, bytes: &[u8]) -> Answer {
        self.body.extend_from_slice(bytes);
        self
    }
}

/// A camera that answers by script and keeps what it was asked ("METHOD address").
struct Scripted {
    port: u16,
    asked: watch::Receiver<Vec<String>>,
}

impl Scripted {
    /// The script is given the method and how many SETUPs of the connection came before.
    async fn start(script: impl Fn(&str, usize) -> Answer + Send + Sync + 'static) -> Scripted {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let (ask, asked) = watch::channel(Vec::new());
        let script = Arc::new(script);
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                ask.send_modify(|asked: &mut Vec<String>| asked.push("CONNECT".to_owned()));
                tokio::spawn(serve(connection, script.clone(), ask.clone()));
            }
        });
        Scripted { port, asked }
    }

    fn url(&self) -> url::Url {
        url::Url::parse(&format!("rtsp://127.0.0.1:{}/cam", self.port)).expect("an address")
    }

    fn count(&self, method: &str) -> usize {
        self.asked.borrow().iter().filter(|asked| asked.starts_with(method)).count()
    }

    /// Waits until the camera was asked something so many times.
    async fn asked(&mut self, method: &str, times: usize) {
        let enough = |asked: &Vec<String>| {
            asked.iter().filter(|asked| asked.starts_with(method)).count() >= times
        };
        tokio::time::timeout(LIMIT, self.asked.wait_for(enough))
            .await
            .unwrap_or_else(|_| panic!("{times} x {method} did not come"))
            .expect("the camera runs");
    }
}

async fn serve(
    connection: TcpStream,
    script: Arc<impl Fn(&str, usize) -> Answer>,
    ask: watch::Sender<Vec<String>>,
) {
    let (read, mut write) = connection.into_split();
    let mut lines = BufReader::new(read).lines();
    let mut set_up = 0;
    let mut request: Vec<String> = Vec::new();
    while let Ok(Some(line)) = lines.next_line().await {
        if !line.is_empty() {
            request.push(line);
            continue;
        }
        let asked = request[0].trim_end_matches(" RTSP/1.0").to_owned();
        let method = asked.split(' ').next().unwrap_or_default().to_owned();
        let cseq = request.iter().find(|line| line.starts_with("CSeq")).expect("a CSeq").clone();
        request.clear();
        ask.send_modify(|all| all.push(asked));
        let Answer { status, head, body } = script(&method, set_up);
        set_up += usize::from(method == "SETUP");
        let mut answer = format!("RTSP/1.0 {status}\r\n{cseq}\r\n{head}\r\n").into_bytes();
        answer.extend(body);
        if write.write_all(&answer).await.is_err() {
            return;
        }
    }
}

/// A description with these audio payload types (0: G.711 mu-law, 8: A-law).
fn audio_sdp(payload_types: impl IntoIterator<Item = u8>) -> String {
    let mut sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n".to_owned();
    for (index, payload_type) in payload_types.into_iter().enumerate() {
        sdp += &format!("m=audio 0 RTP/AVP {payload_type}\r\na=control:track{index}\r\n");
    }
    sdp
}

fn set_up(index: usize) -> Answer {
    let channel = index * 2;
    Answer::ok(&format!(
        "Session: 1;timeout=60\r\nTransport: RTP/AVP/TCP;unicast;interleaved={channel}-{}\r\n",
        channel + 1
    ))
}

fn interleaved(channel: u8, packet: &[u8]) -> Vec<u8> {
    let len = u16::try_from(packet.len()).expect("short").to_be_bytes();
    [&[b'$', channel, len[0], len[1]], packet].concat()
}

/// An RTP packet of 160 octets.
fn rtp(channel: u8, payload_type: u8, seq: u16, time: u32) -> Vec<u8> {
    let mut packet = vec![0x80, payload_type];
    packet.extend(seq.to_be_bytes());
    packet.extend(time.to_be_bytes());
    packet.extend([0, 0, 0, channel]);
    packet.extend([seq as u8; 160]);
    interleaved(channel, &packet)
}

/// An RTCP sender report.
fn report(channel: u8, ntp: u64, time: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 200, 0, 6, 0, 0, 0, channel];
    packet.extend(ntp.to_be_bytes());
    packet.extend(time.to_be_bytes());
    packet.extend([0; 8]);
    interleaved(channel + 1, &packet)
}

/// An RTCP goodbye, behind the empty receiver report that must come first.
fn goodbye(channel: u8) -> Vec<u8> {
    interleaved(
        channel + 1,
        &[0x80, 201, 0, 1, 0, 0, 0, channel, 0x81, 203, 0, 1, 0, 0, 0, channel],
    )
}

struct Pull {
    capture: Arc<Capture>,
    admission: Admission,
    shutdown: CancellationToken,
    task: JoinHandle<()>,
}

fn key() -> StreamKey {
    StreamKey::new("cams", "live", "odd").expect("valid")
}

impl Pull {
    fn start(camera: &Scripted) -> Pull {
        let clock = Arc::new(SystemClock::new());
        Pull::start_with(camera, Admission::new(clock.clone()), clock)
    }

    fn start_with(camera: &Scripted, admission: Admission, clock: Arc<SystemClock>) -> Pull {
        let source = camera::source(key(), &camera.url(), Transport::Tcp);
        let (capture, shutdown) = (Capture::new(), CancellationToken::new());
        let task =
            tokio::spawn(pull(source, capture.clone(), admission.clone(), clock, shutdown.clone()));
        Pull { capture, admission, shutdown, task }
    }

    async fn first_ended(&self) -> Stream {
        let ended = |streams: &[Stream]| streams.first().is_some_and(|s| s.end().is_some());
        self.capture.wait("the end of a stream", LIMIT, ended).await.swap_remove(0)
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(LIMIT, self.task).await.expect("pull returns").expect("no panic");
        assert_eq!(self.admission.live_count(), 0, "the key is free");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let elsewhere = Scripted::start(|_, _| Answer::refuse("404 Not Found", "")).await;
    let location = format!("Location: {}\r\n", elsewhere.url());
    let mut camera =
        Scripted::start(move |_, _| Answer::refuse("302 Moved Temporarily", &location)).await;
    let pull = Pull::start(&camera);
    camera.asked("DESCRIBE", 2).await;
    assert_eq!(elsewhere.count("CONNECT"), 0);
    pull.stop().await;
}

#[tokio::test]
async fn no_more_than_sixteen_tracks_are_set_up() {
    let mut camera = Scripted::start(|method, index| match method {
        "DESCRIBE" => Answer::sdp(&audio_sdp([8; 40])),
        "SETUP" => set_up(index),
        _ => Answer::ok("Session: 1\r\n").then(&rtp(0, 8, 2, 0)).then(&goodbye(0)),
    })
    .await;
    let pull = Pull::start(&camera);
    camera.asked("PLAY", 1).await;
    assert_eq!(camera.count("SETUP"), 16);
    pull.stop().await;
}

#[tokio::test]
async fn a_refused_track_is_left_out_and_the_others_come() {
    let camera = Scripted::start(|method, index| match (method, index) {
        ("DESCRIBE", _) => Answer::sdp(&audio_sdp([8, 0])),
        ("SETUP", 0) => Answer::refuse("461 Unsupported Transport", ""),
        ("SETUP", _) => set_up(0),
        _ => Answer::ok("Session: 1\r\n")
            .then(&rtp(0, 0, 2, 4_000_000_000))
            .then(&rtp(0, 0, 3, 4_000_000_160))
            .then(&goodbye(0)),
    })
    .await;
    let pull = Pull::start(&camera);
    let stream = pull.first_ended().await;
    assert_eq!(stream.end(), Some(&EndCause::Finished));
    let (tracks, left_out) = stream.tracks();
    assert_eq!((tracks.len(), tracks[0].codec), (1, Codec::PcmUlaw));
    assert_eq!(left_out, ["audio/pcma: SETUP answered with status 461"]);
    let times: Vec<i64> = stream.samples(tracks[0].id).iter().map(|sample| sample.pts).collect();
    assert_eq!((times, stream.origin(tracks[0].id)), (vec![0, 160], 4_000_000_000));
    pull.stop().await;
}

#[tokio::test]
async fn sender_reports_align_tracks_whose_zero_nobody_tells() {
    let second = 1_u64 << 32;
    let camera = Scripted::start(move |method, index| match method {
        "DESCRIBE" => Answer::sdp(&audio_sdp([8, 0])),
        "SETUP" => set_up(index),
        // The second track begins a quarter of a second before the first, and wraps.
        _ => Answer::ok("Session: 1\r\n")
            .then(&rtp(0, 8, 2, 50_000))
            .then(&rtp(2, 0, 2, u32::MAX - 159))
            .then(&report(0, 9 * second, 50_000))
            .then(&report(2, 9 * second, 1_840))
            .then(&rtp(2, 0, 3, 0))
            .then(&rtp(0, 8, 3, 50_160))
            .then(&goodbye(0))
            .then(&goodbye(2)),
    })
    .await;
    let pull = Pull::start(&camera);
    let stream = pull.first_ended().await;
    let times = |track| -> Vec<i64> {
        stream.samples(TrackId(track)).iter().map(|sample| sample.dts).collect()
    };
    assert_eq!((times(1), times(2)), (vec![2_000, 2_160], vec![0, 160]));
    pull.stop().await;
}

/// Parameter sets of x264, baseline profile.
const SPS_64X48: [u8; 23] = [
    0x67, 0x42, 0xc0, 0x0a, 0xd9, 0x04, 0x7b, 0x01, 0x10, 0x00, 0x00, 0x03, 0x00, 0x10, 0x00, 0x00,
    0x03, 0x03, 0x20, 0xf1, 0x22, 0x64, 0x80,
];
const SPS_80X64: [u8; 23] = [
    0x67, 0x42, 0xc0, 0x0a, 0xd9, 0x05, 0x26, 0xc0, 0x44, 0x00, 0x00, 0x03, 0x00, 0x04, 0x00, 0x00,
    0x03, 0x00, 0xc8, 0x3c, 0x48, 0x99, 0x20,
];
const PPS: [u8; 5] = [0x68, 0xcb, 0x83, 0xcb, 0x20];

/// An H.264 access unit as RTP packets of one NAL unit each.
fn access_unit(seq: u16, time: u32, units: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    for (index, unit) in units.iter().enumerate() {
        let index = u16::try_from(index).expect("few");
        let marker = usize::from(index) + 1 == units.len();
        let mut packet = vec![0x80, 96 | u8::from(marker) << 7];
        packet.extend((seq + index).to_be_bytes());
        packet.extend(time.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend_from_slice(unit);
        out.extend(interleaved(0, &packet));
    }
    out
}

#[tokio::test]
async fn parameters_that_come_inside_the_stream_and_change_are_announced() {
    let idr: &[u8] = &[0x65, 0xb8, 0x01];
    let sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\n\
        m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:v\r\n";
    let camera = Scripted::start(move |method, index| match method {
        "DESCRIBE" => Answer::sdp(sdp),
        "SETUP" => set_up(index),
        _ => Answer::ok("Session: 1\r\n")
            .then(&access_unit(2, 0, &[idr]))
            .then(&access_unit(3, 3_600, &[&SPS_64X48, &PPS, idr]))
            .then(&access_unit(6, 7_200, &[&SPS_64X48, &PPS, idr]))
            .then(&access_unit(9, 10_800, &[&SPS_80X64, &PPS, idr]))
            .then(&goodbye(0)),
    })
    .await;
    let pull = Pull::start(&camera);
    let stream = pull.first_ended().await;
    let story: Vec<String> = stream
        .events
        .iter()
        .map(|event| match event {
            Event::Tracks(tracks, _) => format!("{:?}", tracks[0].shape),
            Event::Origin(_, raw) => format!("origin {raw}"),
            Event::Sample(sample) => format!("{} {:02x?}", sample.dts, &sample.data[..]),
            Event::End(cause) => cause.to_string(),
        })
        .collect();
    // The first picture has no parameters and can never be shown.
    let picture = |dts| format!("{dts} [00, 00, 00, 03, 65, b8, 01]");
    assert_eq!(
        story,
        [
            "Video { width: 64, height: 48 }".to_owned(),
            "origin 3600".to_owned(),
            picture(0),
            picture(3_600),
            "Video { width: 80, height: 64 }".to_owned(),
            picture(7_200),
            "finished".to_owned(),
        ]
    );
    pull.stop().await;
}

#[tokio::test]
async fn what_is_no_rtsp_is_tried_again_and_harms_nothing() {
    let nonsense: [&[u8]; 5] = [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: -1\r\n\r\n",
        b"RTSP/1.0 200 OK\r\nCSeq: 1\r\nContent-Length: 18446744073709551615\r\n\r\n",
        b"$\x00\xff\xff\x00\x01\x02",
        b"\x00\xff\xfe\r\n\r\n",
    ];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let (count, mut counted) = watch::channel(0);
    tokio::spawn(async move {
        for answer in nonsense.iter().cycle() {
            let Ok((mut connection, _)) = listener.accept().await else { return };
            count.send_modify(|count| *count += 1);
            // Nobody need be left to read it.
            let _ = connection.write_all(answer).await;
        }
    });
    let asked = watch::channel(Vec::new()).1;
    let pull = Pull::start(&Scripted { port, asked });
    // Each kind of nonsense has been read when the connection after it comes.
    tokio::time::timeout(LIMIT, counted.wait_for(|count| *count > nonsense.len()))
        .await
        .expect("tried again")
        .expect("still counting");
    assert!(pull.capture.streams().is_empty());
    pull.stop().await;
}

#[tokio::test]
async fn the_key_is_asked_for_and_one_that_fell_silent_gives_way() {
    let camera = Scripted::start(|method, index| match method {
        "DESCRIBE" => Answer::sdp(&audio_sdp([8])),
        "SETUP" => set_up(index),
        _ => Answer::ok("Session: 1\r\n").then(&rtp(0, 8, 2, 0)).then(&goodbye(0)),
    })
    .await;
    let clock = Arc::new(SystemClock::new());
    let admission = Admission::new(clock.clone());
    let pusher = admission.admit(&key()).await.expect("free");
    pusher.touch(clock.now().boot);
    let mut camera = camera;
    let pull = Pull::start_with(&camera, admission, clock);
    camera.asked("PLAY", 1).await;
    // The pusher delivers nothing for two seconds: then the camera gets it to give way.
    tokio::time::timeout(LIMIT, pusher.replaced().cancelled()).await.expect("asked to give way");
    assert!(pull.capture.streams().is_empty(), "not while the pusher has the key");
    drop(pusher);
    assert_eq!(pull.first_ended().await.end(), Some(&EndCause::Finished));
    pull.stop().await;
}
