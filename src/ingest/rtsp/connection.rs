//! One connection to a camera: DESCRIBE, SETUP, PLAY, then what arrives, put on one axis of time.
//! Every answer has a time limit, and so has silence.
//!
//! Redirects are not followed (the library takes them for failures).
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

use super::assembly::{Assembly, Frame, Output};
use super::fault::{Fault, Stage};
use super::offer::{self, Wanted};
use crate::domain::limits::PUBLISHER_SILENT_MS;
use crate::domain::origin::SenderReport;
use crate::domain::sample::Codec;
use crate::domain::source::{Source, Transport};
use crate::ingest::intake::EndCause;
use crate::media::codec::nal;

/// Longest wait for an answer, connecting included.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time without media.
const SILENCE_MAX: Duration = Duration::from_millis(PUBLISHER_SILENT_MS);
/// Time for packets that RTCP goodbyes of all tracks have overtaken.
const GOODBYE_GRACE: Duration = Duration::from_millis(500);
/// RTCP packet type of a goodbye (RFC 3550, 6.6).
const RTCP_BYE: u8 = 203;
/// Bytes of the length before each NAL unit, see [`FrameFormat::MP4`].
const NAL_LENGTH_BYTES: u8 = 4;

/// A camera that sends.
pub(super) struct Connection {
    source: Source,
    media: Demuxed,
    /// Tracks by lane.
    lanes: Vec<(Wanted, Goodbye)>,
    assembly: Assembly,
    lost_packets: u64,
    /// How long it may be silent, and until when.
    silence: Duration,
    deadline: Instant,
}

/// Whether a track's sender has said goodbye.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goodbye {
    NotYet,
    Said,
}

/// What an item was good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worth {
    /// It is part of the stream.
    Media,
    /// It is not.
    Nothing,
}

/// What happened on a connection.
#[derive(Debug)]
pub(super) enum Step {
    /// Something came and was taken.
    Took(Worth),
    /// It is over.
    Over(Result<EndCause, Fault>),
}

impl Connection {
    /// Connects and brings the camera to send.
    ///
    /// # Errors
    /// The camera does not answer, refuses, or has nothing that can be carried.
    pub(super) async fn open(source: Source, group: &Arc<SessionGroup>) -> Result<Self, Fault> {
        let (media, wanted, left_out) = play(&source, group).await?;
        let tracks: Vec<_> = wanted.iter().map(|track| (track.codec, track.timescale)).collect();
        let lanes = wanted.into_iter().map(|track| (track, Goodbye::NotYet)).collect();
        let assembly = Assembly::new(&tracks, left_out);
        let (silence, deadline) = (SILENCE_MAX, Instant::now() + SILENCE_MAX);
        let mut connection =
            Connection { source, media, lanes, assembly, lost_packets: 0, silence, deadline };
        (0..connection.lanes.len()).for_each(|lane| connection.describe(lane));
        Ok(connection)
    }

    /// Where it leads.
    pub(super) fn source(&self) -> &Source {
        &self.source
    }

    /// What has come out of what was taken.
    pub(super) fn next_output(&mut self) -> Option<Output> {
        self.assembly.next_output()
    }

    /// The sender's clock at time 0 of the reference track, once that is known.
    pub(super) fn clock_at_zero(&self) -> Option<u64> {
        self.assembly.clock_at_zero()
    }

    /// The stream is over: lets out what is held.
    pub(super) fn finish(&mut self) {
        self.assembly.finish();
        if self.lost_packets > 0 {
            tracing::warn!(packets = self.lost_packets, "RTP packets were lost");
        }
    }

    /// Waits for the next item and takes it. Nothing is lost if the wait is given up.
    pub(super) async fn step(&mut self) -> Step {
        let item = tokio::select! {
            biased;
            item = self.media.next() => item,
            () = sleep_until(self.deadline) => {
                return Step::Over(match self.is_over() {
                    true => Ok(EndCause::Finished),
                    false => Err(Fault::Silent(self.silence)),
                });
            }
        };
        let item = match item {
            Some(Ok(item)) => item,
            Some(Err(error)) => return Step::Over(Err(Fault::from_rtsp(Stage::Receive, &error))),
            None if self.is_over() => return Step::Over(Ok(EndCause::Finished)),
            None => {
                let words = "the camera closed the connection".to_owned();
                return Step::Over(Err(Fault::Rtsp { stage: Stage::Receive, words }));
            }
        };
        let was_over = self.is_over();
        let worth = self.take(item);
        let is_over_now = self.is_over() && !was_over;
        if is_over_now {
            self.silence = GOODBYE_GRACE;
        }
        if worth == Worth::Media || is_over_now {
            self.deadline = Instant::now() + self.silence;
        }
        Step::Took(worth)
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

/// Connects and brings the camera to send: DESCRIBE, SETUP of what can be carried, PLAY.
async fn play(
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
