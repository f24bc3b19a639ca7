#!/usr/bin/python3
"""A camera for tests: an RTSP server with live test pictures, and an account of what it sent.

    camera.py [--port N] [--user NAME --password WORD] [--seconds N] [--log FILE]

Prints `port N` on stdout when it is ready. With --user every mount asks for digest
authentication. With --log it writes JSON lines:

    {"kind": "unit",   "session": S, "mount": M, "track": T, "pts": ns, "dts": ns,
     "clock": ns, "size": bytes, "sha256": hex, "key": bool}
    {"kind": "packet", "session": S, "mount": M, "track": T, "seq": 16-bit,
     "rtp": 32-bit, "marker": bool}
    {"kind": "octets", ...}   G.711: like unit, with the bytes in hex as "data"
    {"kind": "teardown", "mount": M}

A unit is an access unit or audio frame as it enters the RTP payloader; pts and dts are running
time of the pipeline, clock is pts by the clock that all pipelines of the camera share. Size and
hash of video cover the NAL units, each behind a 4-byte length,
without parameter sets and access unit delimiters, which a payloader may move or drop. A packet
is an RTP packet as it leaves the payloader. Track is "video" or "audio"; session counts
pipelines from 0.

Mounts (a pipeline for each session unless it says shared; those with an end stop after --seconds):
    /h264-aac  /h265-pcma  /h264-pcmu  /bframes-aac  /h264-opus  /h264     with an end
    /endless  (H.264 + PCMU)   /shared  (H.264 + AAC, one pipeline for all) without
"""

import argparse
import hashlib
import itertools
import json
import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402

FPS = 25
AUDIO_RATE = {"aac": 48000, "pcma": 8000, "pcmu": 8000, "opus": 48000}
AUDIO_CHUNK = {"aac": 1024, "pcma": 160, "pcmu": 160, "opus": 960}

VIDEO = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast bitrate=300 key-int-max=25 "
            "! video/x-h264,profile=main ! h264parse name=parse_video "
            "! rtph264pay name=pay0 pt=96 config-interval={inband}",
    "bframes": "x264enc speed-preset=superfast bitrate=300 key-int-max=25 bframes=2 b-adapt=false "
               "rc-lookahead=5 sync-lookahead=0 sliced-threads=true "
               "! video/x-h264,profile=main ! h264parse name=parse_video "
               "! rtph264pay name=pay0 pt=96 config-interval={inband}",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast bitrate=300 key-int-max=25 "
            "! h265parse name=parse_video ! rtph265pay name=pay0 pt=96 config-interval={inband}",
}
AUDIO = {
    "aac": "avenc_aac bitrate=64000 ! aacparse name=parse_audio ! rtpmp4gpay name=pay1 pt=97",
    "pcma": "alawenc name=parse_audio ! rtppcmapay name=pay1 pt=8",
    "pcmu": "mulawenc name=parse_audio ! rtppcmupay name=pay1 pt=0",
    "opus": "opusenc ! opusparse name=parse_audio ! rtpopuspay name=pay1 pt=97",
}
PARAMETER_SETS = {"video/x-h264": {7, 8, 9}, "video/x-h265": {32, 33, 34, 35}}


def launch(video, audio, seconds, motion="wavy"):
    """The pipeline of a mount; endless without seconds. Pictures of another motion are others."""
    frames = FPS * seconds if seconds else -1
    parts = [
        f"videotestsrc is-live=true pattern=ball motion={motion} num-buffers={frames} "
        f"! video/x-raw,format=I420,width=160,height=120,framerate={FPS}/1 "
        "! " + VIDEO[video].format(inband=-1)
    ]
    if audio:
        rate, chunk = AUDIO_RATE[audio], AUDIO_CHUNK[audio]
        buffers = rate * seconds // chunk if seconds else -1
        parts.append(
            f"audiotestsrc is-live=true wave=ticks samplesperbuffer={chunk} num-buffers={buffers} "
            f"! audio/x-raw,rate={rate},channels=1 ! audioconvert ! " + AUDIO[audio]
        )
    return "( " + "  ".join(parts) + " )"


class Log:
    """Writes JSON lines, whole ones, from any thread."""

    def __init__(self, path):
        self.file = open(path, "w", buffering=1) if path else None
        self.lock = threading.Lock()

    def write(self, **fields):
        if self.file:
            with self.lock:
                self.file.write(json.dumps(fields) + "\n")


def nal_units(data, stream_format):
    """The NAL units of an access unit in byte-stream or length-prefixed form."""
    if stream_format != "byte-stream":
        at = 0
        while at + 4 <= len(data):
            size = int.from_bytes(data[at:at + 4], "big")
            yield data[at + 4:at + 4 + size]
            at += 4 + size
        return
    start = data.find(b"\0\0\1")
    while start >= 0:
        end = data.find(b"\0\0\1", start + 3)
        unit = data[start + 3:end] if end >= 0 else data[start + 3:]
        yield unit.rstrip(b"\0")
        start = end


def normal_form(data, caps):
    """Video without start codes, parameter sets and delimiters; anything else as it is."""
    structure = caps.get_structure(0)
    name = structure.get_name()
    if name not in PARAMETER_SETS:
        return data
    out = b""
    for unit in nal_units(data, structure.get_string("stream-format")):
        kind = unit[0] & 0x1F if name == "video/x-h264" else unit[0] >> 1 & 0x3F
        if kind not in PARAMETER_SETS[name]:
            out += len(unit).to_bytes(4, "big") + unit
    return out


def buffer_bytes(buffer):
    return buffer.extract_dup(0, buffer.get_size())


class Account:
    """Writes down what one pipeline sends."""

    def __init__(self, log, mount, session):
        self.log = log
        self.common = {"mount": mount, "session": session}
        self.last = {}

    def watch(self, media):
        element = media.get_element()
        for track, payloader in (("video", "pay0"), ("audio", "pay1")):
            parser = element.get_by_name(f"parse_{track}")
            if parser is None:
                continue
            parser.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, self.on_unit, track)
            packets = element.get_by_name(payloader)
            if packets is not None:
                packets.get_static_pad("src").add_probe(
                    Gst.PadProbeType.BUFFER | Gst.PadProbeType.BUFFER_LIST, self.on_packet, track)

    def on_unit(self, pad, info, track):
        buffer = info.get_buffer()
        caps = pad.get_current_caps()
        segment = pad.get_sticky_event(Gst.EventType.SEGMENT, 0).parse_segment()
        shift = segment.base - segment.start
        pts = buffer.pts + shift
        dts = pts if buffer.dts == Gst.CLOCK_TIME_NONE else buffer.dts + shift
        data = normal_form(buffer_bytes(buffer), caps)
        # The first buffer passes the probe twice: once more after the stream is unblocked.
        if self.last.get(track) == (pts, data):
            return Gst.PadProbeReturn.OK
        self.last[track] = (pts, data)
        clock = pts + pad.get_parent_element().get_base_time()
        fields = dict(self.common, kind="unit", track=track, pts=pts, dts=dts, clock=clock,
                      size=len(data), sha256=hashlib.sha256(data).hexdigest(),
                      key=not buffer.has_flags(Gst.BufferFlags.DELTA_UNIT))
        if caps.get_structure(0).get_name() in ("audio/x-alaw", "audio/x-mulaw"):
            fields.update(kind="octets", data=data.hex())
        self.log.write(**fields)
        return Gst.PadProbeReturn.OK

    def on_packet(self, _pad, info, track):
        if info.type & Gst.PadProbeType.BUFFER_LIST:
            buffers = info.get_buffer_list()
            packets = [buffers.get(i) for i in range(buffers.length())]
        else:
            packets = [info.get_buffer()]
        for packet in packets:
            header = packet.extract_dup(0, 12)
            self.log.write(**self.common, kind="packet", track=track,
                           seq=int.from_bytes(header[2:4], "big"),
                           rtp=int.from_bytes(header[4:8], "big"), marker=bool(header[1] & 0x80))
        return Gst.PadProbeReturn.OK


def mounts(seconds):
    """Path -> (pipeline, shared)."""
    return {
        "/h264-aac": (launch("h264", "aac", seconds), False),
        "/h265-pcma": (launch("h265", "pcma", seconds), False),
        "/h264-pcmu": (launch("h264", "pcmu", seconds), False),
        "/bframes-aac": (launch("bframes", "aac", seconds), False),
        "/h264-opus": (launch("h264", "opus", seconds), False),
        "/h264": (launch("h264", None, seconds), False),
        "/endless": (launch("h264", "pcmu", None), False),
        "/shared": (launch("h264", "aac", None, "sweep"), True),
    }


def make_server(options, log):
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(options.port))
    sessions = itertools.count()
    if options.user:
        auth = GstRtspServer.RTSPAuth()
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        token = GstRtspServer.RTSPToken()
        token.set_string("media.factory.role", "viewer")
        auth.add_digest(options.user, options.password, token)
        server.set_auth(auth)
    for path, (pipeline, shared) in mounts(options.seconds).items():
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(pipeline)
        factory.set_shared(shared)
        factory.set_eos_shutdown(False)
        if options.user:
            factory.add_role_from_structure(role())
        factory.connect("media-configure", lambda _factory, media, mount: Account(
            log, mount, next(sessions)).watch(media), path)
        server.get_mount_points().add_factory(path, factory)
    server.connect("client-connected", lambda _server, client: client.connect(
        "teardown-request", lambda _client, context: log.write(
            kind="teardown", mount=context.uri.abspath.rstrip("/"))))
    return server


def role():
    structure = Gst.Structure.new_empty("viewer")
    structure.set_value("media.factory.access", True)
    structure.set_value("media.factory.construct", True)
    return structure


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--user")
    parser.add_argument("--password", default="")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--log")
    options = parser.parse_args()

    Gst.init(None)
    server = make_server(options, Log(options.log))
    if server.attach(None) == 0:
        sys.exit(f"cannot listen on port {options.port}")
    print(f"port {server.get_bound_port()}", flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main()
