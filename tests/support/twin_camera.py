#!/usr/bin/python3
"""A camera with one encoder and two addresses: what comes on them are the same access units.

    twin_camera.py --log FILE [--sessions-max N]

Prints `port N` on stdout when it is ready. Each session is a pipeline of its own: it begins with the
encoder's next key frame (B-frames in the group), and with a random RTP origin. The account is that of
camera.py; the mount "encoder" is what the encoder made, whoever looked on. With --sessions-max the
camera answers DESCRIBE with 453 (Not Enough Bandwidth) while so many sessions are open.

Mounts: /main  /sub
"""

import argparse
import itertools
import threading

from camera import FPS, Account, Gst, GstRtsp, GstRtspServer, GLib, Log, buffer_bytes

ENCODER = (
    f"videotestsrc is-live=true pattern=ball "
    f"! video/x-raw,format=I420,width=160,height=120,framerate={FPS}/1 "
    "! x264enc speed-preset=superfast bitrate=300 key-int-max=25 bframes=2 b-adapt=false "
    "rc-lookahead=5 sync-lookahead=0 sliced-threads=true ! video/x-h264,profile=main "
    "! h264parse name=parse_video config-interval=-1 "
    "! video/x-h264,stream-format=byte-stream,alignment=au "
    "! appsink name=video emit-signals=true sync=false "
    # Noise, so that no frame of sound is like another.
    "audiotestsrc is-live=true wave=pink-noise samplesperbuffer=1024 "
    "! audio/x-raw,rate=48000,channels=1 ! audioconvert ! avenc_aac bitrate=64000 "
    "! aacparse name=parse_audio ! appsink name=audio emit-signals=true sync=false"
)
SESSION = (
    "( appsrc name=src_video is-live=true format=time max-bytes=0 "
    "! h264parse name=parse_video ! rtph264pay name=pay0 pt=96 config-interval=-1 "
    "appsrc name=src_audio is-live=true format=time max-bytes=0 "
    "! aacparse name=parse_audio ! rtpmp4gpay name=pay1 pt=97 )"
)


def to_running(sample):
    """What is added to a sample's times for the running time of its pipeline."""
    segment = sample.get_segment()
    return segment.base - segment.start


def first_time(buffer):
    """The earlier one of its times."""
    return buffer.pts if buffer.dts == Gst.CLOCK_TIME_NONE else min(buffer.pts, buffer.dts)


class Session:
    """One who looks on."""

    def __init__(self, media):
        self.element = media.get_element()
        self.pipeline = self.element.get_parent()
        # What is added to the encoder's running time; known once the session has begun.
        self.shift = None

    def take(self, track, sample, base):
        buffer = sample.get_buffer()
        is_key = not buffer.has_flags(Gst.BufferFlags.DELTA_UNIT)
        if self.shift is None:
            # Sound begins with the pictures' key frame, so that no session waits for it.
            playing = self.pipeline.get_state(0)[1] == Gst.State.PLAYING
            if not (playing and track == "video" and is_key):
                return
            shift = base - self.pipeline.get_base_time()
            # Pictures that were taken before the session was there have no times in it.
            if first_time(buffer) + to_running(sample) + shift < 0:
                return
            self.shift = shift
        source = self.element.get_by_name(f"src_{track}")
        if source.get_property("caps") is None:
            source.set_property("caps", sample.get_caps())
        shift = to_running(sample) + self.shift
        copy = Gst.Buffer.new_wrapped(buffer_bytes(buffer))
        copy.pts = max(buffer.pts + shift, 0)
        if buffer.dts != Gst.CLOCK_TIME_NONE:
            copy.dts = max(buffer.dts + shift, 0)
        copy.duration = buffer.duration
        if not is_key:
            copy.set_flags(Gst.BufferFlags.DELTA_UNIT)
        source.emit("push-buffer", copy)


class Hub:
    """Hands what the encoder makes to every session."""

    def __init__(self, log):
        self.lock = threading.Lock()
        self.sessions = []
        self.pipeline = Gst.parse_launch(ENCODER)
        for track in ("video", "audio"):
            self.pipeline.get_by_name(track).connect("new-sample", self.on_sample, track)
        Account(log, "encoder", -1).watch(self)
        self.pipeline.set_state(Gst.State.PLAYING)

    def get_element(self):
        return self.pipeline

    def on_sample(self, sink, track):
        sample = sink.emit("pull-sample")
        with self.lock:
            for session in self.sessions:
                session.take(track, sample, self.pipeline.get_base_time())
        return Gst.FlowReturn.OK

    def enter(self, media):
        session = Session(media)
        with self.lock:
            self.sessions.append(session)
        media.connect("unprepared", lambda _media: self.leave(session))

    def leave(self, session):
        with self.lock:
            if session in self.sessions:
                self.sessions.remove(session)

    def count(self):
        with self.lock:
            return len(self.sessions)


def make_server(options, log, hub):
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    numbers = itertools.count()

    def on_media(_factory, media, mount):
        Account(log, mount, next(numbers)).watch(media)
        hub.enter(media)

    def on_describe(_client, _context):
        if options.sessions_max and hub.count() >= options.sessions_max:
            return GstRtsp.RTSPStatusCode.NOT_ENOUGH_BANDWIDTH
        return GstRtsp.RTSPStatusCode.OK

    for mount in ("/main", "/sub"):
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(SESSION)
        factory.set_shared(False)
        factory.connect("media-configure", on_media, mount)
        server.get_mount_points().add_factory(mount, factory)
    server.connect("client-connected", lambda _server, client: client.connect(
        "pre-describe-request", on_describe))
    return server


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--sessions-max", type=int, default=0)
    options = parser.parse_args()

    Gst.init(None)
    log = Log(options.log)
    server = make_server(options, log, Hub(log))
    server.attach(None)
    print(f"port {server.get_bound_port()}", flush=True)
    GLib.MainLoop().run()


main()
