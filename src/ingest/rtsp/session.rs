//! One connection to a camera: DESCRIBE, SETUP, PLAY, media, TEARDOWN. Every answer has a time
//! limit, and so has silence.
//!
//! The stream is offered to the intake when its first tracks are known, not before: a camera that
//! is off makes no sessions. Redirects are not followed (the library takes them for failures).
//!
//! Known gap: the library (retina 0.4.21) limits neither the size of an RTSP answer nor that of an
//! access unit, and opens its own connections, so a hostile camera can make the box buffer what it
//! sends within [`ANSWER_TIMEOUT`] or [`SILENCE_MAX`]. To be closed inside the library.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use retina::client::{
    Credentials, Demuxed, Described, InitialTimestampPolicy, PlayOptions, Session, SessionGroup,
    SessionOptions, SetupOptions, TcpTransportOptions, Transport as RtpTransport,
    UdpTransportOptions,
};
use retina::codec::{CodecItem, FrameFormat};
use retina::rtcp::ReceivedCompoundPacket;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::assembly::{Assembly, Frame, Output};
use super::fault::{Fault, Stage};
use super::offer::{self, Wanted};
use crate::domain::limits::PUBLISHER_SILENT_MS;
use crate::domain::origin::SenderReport;
use crate::domain::sample::Codec;
use crate::domain::source::{Source, Transport};
use crate::ingest::admission::{Admission, LiveKey};
use crate::ingest::intake::{Arrival, EndCause, Intake, Protocol, StreamSink};
use crate::media::codec::nal;
use crate::platform::clock::Clock;

/// Longest wait for an answer, connecting included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time without media.
const SILENCE_MAX: Duration = Duration::from_millis(PUBLISHER_SILENT_MS);
/// Time for packets that RTCP goodbyes of all tracks have overtaken.
const GOODBYE_GRACE: Duration = Duration::from_millis(500);
/// Longest wait for the answer to TEARDOWN.
const TEARDOWN_TIMEOUT: Duration = Duration::from_secs(2);
/// Port where the address names none.
const RTSP_PORT: u16 = 554;
/// RTCP packet type of a goodbye (RFC 3550, 6.6).
const RTCP_BYE: u8 = 203;
/// Bytes of the length before each NAL unit, see [`FrameFormat::MP4`].
const NAL_LENGTH_BYTES: u8 = 4;

/// How an attempt ended.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Whether the stream was taken by the intake.
    pub(super) taken: bool,
    /// Why it is over.
    pub(super) end: Result<EndCause, Fault>,
}

/// Pulls the camera until it ends, fails, or is cancelled.
pub(super) async fn run(source: &Source, ports: &Ports, shutdown: &CancellationToken) -> Outcome {
    let group = Arc::new(SessionGroup::default());
    let mut taken = Taken { source, intake: ports.intake.as_ref(), sink: None, live: None };
    let end = pull_once(&mut taken, ports, &group, shutdown).await;
    // The session is dropped by now and says TEARDOWN on its own; let the camera hear it before
    // the next connection, or before the process ends.
    let Taken { sink, live, .. } = taken;
    let outcome = Outcome { taken: sink.is_some(), end };
    if let Some(sink) = sink {
        sink.end(match &outcome.end {
            Ok(cause) => cause.clone(),
            Err(Fault::Silent(_)) => EndCause::Silent,
            Err(fault) => EndCause::Disconnected(fault.to_string()),
        });
    }
    // The key is free once the stream has ended, not before.
    drop(live);
    if timeout(TEARDOWN_TIMEOUT, group.await_teardown()).await.is_err() {
        tracing::debug!("no answer to TEARDOWN");
    }
    outcome
}

/// Host and port of a camera, for logs and events: the rest of its address may be secret.
pub(super) fn peer(source: &Source) -> String {
    format!("{}:{}", source.url.host(), source.url.port().unwrap_or(RTSP_PORT))
}

/// What pulling needs of the box.
pub(super) struct Ports {
    /// Takes the streams.
    pub(super) intake: Arc<dyn Intake>,
    /// One publisher per stream key.
    pub(super) admission: Admission,
    /// Time of deliveries.
    pub(super) clock: Arc<dyn Clock>,
}

/// The stream in the hands of the intake, once it is.
struct Taken<'a> {
    source: &'a Source,
    intake: &'a dyn Intake,
    sink: Option<Box<dyn StreamSink>>,
    live: Option<LiveKey>,
}

impl Taken<'_> {
    /// Hands on what the assembly has; the stream is offered with its first tracks. Returns the
    /// sink's cancellation when the stream has just been taken.
    fn hand_on(&mut self, assembly: &mut Assembly) -> Result<Option<CancellationToken>, Fault> {
        let mut cancelled = None;
        while let Some(output) = assembly.next_output() {
            let sink = match &mut self.sink {
                Some(sink) => sink,
                None => {
                    let arrival = Arrival {
                        key: self.source.key.clone(),
                        protocol: Protocol::Rtsp,
                        query: String::new(),
                        peer: peer(self.source),
                    };
                    let sink = self.intake.admit(&arrival).map_err(Fault::Refused)?;
                    tracing::info!("camera delivers");
                    cancelled = Some(sink.cancelled());
                    self.sink.insert(sink)
                }
            };
            match output {
                Output::Tracks(tracks, left_out) => sink.tracks(&tracks, &left_out),
                Output::Origin(track, raw) => sink.origin(track, raw),
                Output::Sample(sample) => sink.sample(sample),
            }
        }
        Ok(cancelled)
    }
}

async fn pull_once(
    taken: &mut Taken<'_>,
    ports: &Ports,
    group: &Arc<SessionGroup>,
    shutdown: &CancellationToken,
) -> Result<EndCause, Fault> {
    let opened = async {
        let media = open(taken.source, group).await?;
        // Only a camera that answers takes the key; one that is off must not keep others out.
        let live = ports.admission.admit(&taken.source.key).await.map_err(Fault::Refused)?;
        Ok((media, live))
    };
    let ((media, wanted, left_out), live) = tokio::select! {
        biased;
        () = shutdown.cancelled() => return Ok(EndCause::Cancelled),
        opened = opened => opened?,
    };
    let (clock, replaced) = (ports.clock.as_ref(), live.replaced());
    taken.live = Some(live);
    let mut receiver = Receiver::new(media, wanted, left_out);
    let end = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(EndCause::Cancelled),
        // Whatever came is handed on within the same poll, so none is lost between.
        end = receiver.receive(taken, clock) => end,
        () = replaced.cancelled() => Ok(EndCause::Replaced),
    };
    // Held frames of a stream that nobody took are worth a stream only if it ended by itself.
    let given_up =
        matches!(end, Ok(EndCause::Cancelled | EndCause::Replaced) | Err(Fault::Refused(_)));
    receiver.assembly.finish();
    let handed = match taken.sink.is_none() && given_up {
        true => Ok(None),
        false => taken.hand_on(&mut receiver.assembly),
    };
    if receiver.lost_packets > 0 {
        tracing::warn!(packets = receiver.lost_packets, "RTP packets were lost");
    }
    let cause = end?;
    handed.map(|_| cause)
}

/// Connects and brings the camera to send: DESCRIBE, SETUP of what can be carried, PLAY.
async fn open(
    source: &Source,
    group: &Arc<SessionGroup>,
) -> Result<(Demuxed, Vec<Wanted>, Vec<String>), Fault> {
    let credentials = source.url.credentials();
    let options = SessionOptions::default()
        .creds(credentials.map(|(username, password)| Credentials {
            username,
            password: password.expose().to_owned(),
        }))
        .user_agent("edgerec".to_owned())
        .session_group(group.clone());
    let describe = Session::describe(source.url.without_credentials(), options);
    let mut session = answer(Stage::Describe, describe).await?;
    let (wanted, mut left_out) = offer::choose(session.streams());
    let wanted = set_up(&mut session, source.transport, wanted, &mut left_out).await?;
    // Jumps are allowed (B-frames jump), and a camera need not tell a zero of time.
    let play = PlayOptions::default().initial_timestamp(InitialTimestampPolicy::Permissive);
    let playing = answer(Stage::Play, session.play(play)).await?;
    let media = playing.demuxed().map_err(|error| Fault::from_rtsp(Stage::Play, &error))?;
    Ok((media, wanted, left_out))
}

/// Sets up the wanted tracks; one that the camera refuses is left out. At least one remains.
async fn set_up(
    session: &mut Session<Described>,
    transport: Transport,
    wanted: Vec<Wanted>,
    left_out: &mut Vec<String>,
) -> Result<Vec<Wanted>, Fault> {
    let mut set_up = Vec::new();
    for track in wanted {
        let transport = match transport {
            Transport::Tcp => RtpTransport::Tcp(TcpTransportOptions::default()),
            Transport::Udp => RtpTransport::Udp(UdpTransportOptions::default()),
        };
        let options = SetupOptions::default().transport(transport).frame_format(FrameFormat::MP4);
        match answer(Stage::Setup, session.setup(track.stream, options)).await {
            Ok(()) => set_up.push(track),
            Err(Fault::Status { status, .. }) => {
                let name = offer::name(&session.streams()[track.stream]);
                left_out.push(format!("{name}: SETUP answered with status {status}"));
            }
            Err(fault) => return Err(fault),
        }
    }
    if set_up.is_empty() {
        return Err(Fault::NoTrack(std::mem::take(left_out)));
    }
    Ok(set_up)
}

/// Waits for an answer, not for ever.
async fn answer<T>(
    stage: Stage,
    answer: impl Future<Output = Result<T, retina::Error>>,
) -> Result<T, Fault> {
    match timeout(ANSWER_TIMEOUT, answer).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Fault::from_rtsp(stage, &error)),
        Err(_) => Err(Fault::NoAnswer { stage, waited: ANSWER_TIMEOUT }),
    }
}

/// Turns what arrives into assembly input.
struct Receiver {
    media: Demuxed,
    /// Tracks by lane.
    lanes: Vec<(Wanted, Goodbye)>,
    assembly: Assembly,
    lost_packets: u64,
}

/// Whether a track's sender has said goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    NotYet,
    Said,
}

/// What an item was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Worth {
    Media,
    Nothing,
}

impl Receiver {
    fn new(media: Demuxed, wanted: Vec<Wanted>, left_out: Vec<String>) -> Self {
        let tracks: Vec<_> = wanted.iter().map(|track| (track.codec, track.timescale)).collect();
        let lanes = wanted.into_iter().map(|track| (track, Goodbye::NotYet)).collect();
        let assembly = Assembly::new(&tracks, left_out);
        Receiver { media, lanes, assembly, lost_packets: 0 }
    }

    async fn receive(
        &mut self,
        taken: &mut Taken<'_>,
        clock: &dyn Clock,
    ) -> Result<EndCause, Fault> {
        (0..self.lanes.len()).for_each(|lane| self.describe(lane));
        let mut cancelled = CancellationToken::new();
        let mut silence = SILENCE_MAX;
        let deadline = sleep_until(Instant::now() + silence);
        tokio::pin!(deadline);
        loop {
            let item = tokio::select! {
                biased;
                () = cancelled.cancelled() => return Ok(EndCause::Cancelled),
                item = self.media.next() => item,
                () = &mut deadline => {
                    return match self.is_over() {
                        true => Ok(EndCause::Finished),
                        false => Err(Fault::Silent(silence)),
                    };
                }
            };
            let item = match item {
                Some(Ok(item)) => item,
                Some(Err(error)) => return Err(Fault::from_rtsp(Stage::Receive, &error)),
                None if self.is_over() => return Ok(EndCause::Finished),
                None => {
                    let words = "the camera closed the connection".to_owned();
                    return Err(Fault::Rtsp { stage: Stage::Receive, words });
                }
            };
            let was_over = self.is_over();
            let worth = self.take(item);
            if self.is_over() && !was_over {
                silence = GOODBYE_GRACE;
            }
            if let (Worth::Media, Some(live)) = (worth, &taken.live) {
                live.touch(clock.now().boot);
            }
            if worth == Worth::Media || self.is_over() && !was_over {
                deadline.as_mut().reset(Instant::now() + silence);
            }
            if let Some(token) = taken.hand_on(&mut self.assembly)? {
                cancelled = token;
            }
        }
    }

    /// Whether the senders of all tracks have said goodbye.
    fn is_over(&self) -> bool {
        self.lanes.iter().all(|(_, goodbye)| *goodbye == Goodbye::Said)
    }

    fn lane_of(&self, stream: usize) -> Option<usize> {
        self.lanes.iter().position(|(track, _)| track.stream == stream)
    }

    fn take(&mut self, item: CodecItem) -> Worth {
        match item {
            CodecItem::VideoFrame(video) => {
                let Some(lane) = self.lane_of(video.stream_id()) else { return Worth::Nothing };
                self.lost_packets += u64::from(video.loss());
                if video.has_new_parameters() {
                    self.describe(lane);
                }
                let time = video.timestamp();
                self.take_frame(lane, time, Bytes::from(video.into_data()))
            }
            CodecItem::AudioFrame(audio) => {
                let Some(lane) = self.lane_of(audio.stream_id()) else { return Worth::Nothing };
                self.lost_packets += u64::from(audio.loss());
                self.take_frame(lane, audio.timestamp(), Bytes::copy_from_slice(audio.data()))
            }
            CodecItem::Rtcp(packet) => {
                self.take_control(&packet);
                Worth::Nothing
            }
            _ => Worth::Nothing,
        }
    }

    fn take_frame(&mut self, lane: usize, time: retina::Timestamp, data: Bytes) -> Worth {
        if data.is_empty() {
            return Worth::Nothing;
        }
        let key = nal::is_key(self.codec(lane), &data, NAL_LENGTH_BYTES);
        let frame = Frame { rtp: time.timestamp(), zero: i64::from(time.start()), key, data };
        if self.assembly.frame(lane, frame) { Worth::Media } else { Worth::Nothing }
    }

    fn take_control(&mut self, packet: &ReceivedCompoundPacket) {
        let Some(lane) = self.lane_of(packet.stream_id()) else { return };
        for part in packet.pkts() {
            if part.payload_type() == RTCP_BYE {
                self.lanes[lane].1 = Goodbye::Said;
            }
            if let (Ok(Some(report)), Some(time)) =
                (part.as_sender_report(), packet.rtp_timestamp())
            {
                let report = SenderReport { ntp: report.ntp_timestamp().0, rtp: time.timestamp() };
                self.assembly.report(lane, report);
            }
        }
    }

    /// Tells the assembly what the library knows of the track by now.
    fn describe(&mut self, lane: usize) {
        let codec = self.codec(lane);
        let stream = &self.media.streams()[self.lanes[lane].0.stream];
        let Some(parameters) = stream.parameters() else { return };
        match offer::format(codec, &parameters) {
            Ok(format) => self.assembly.describe(lane, format),
            Err(why) => tracing::warn!(codec = codec.name(), why, "track cannot be described"),
        }
    }

    fn codec(&self, lane: usize) -> Codec {
        self.lanes[lane].0.codec
    }
}
