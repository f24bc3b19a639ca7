//! The bench of an hour: what it costs to finish an MP4 file of one hour when its stream ends, beside ffmpeg,
//! which writes it again with its index in front.
//!
//! The hour is fed to the recorder in this process, as fast as the ring makes it durable: some minutes.
//! Processor time is that of the whole process, and of ffmpeg when it is over.

mod meter;
#[path = "../support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use edgerec::media::render;
use edgerec::platform::flash::SystemFlash;
use edgerec::ring::identity::RingIdentity;

use support::edge_box::record_all;
use support::media::Clip;
use support::process::run_ok;
use support::recorded_ring::{Recording, Sent, open};
use support::{scratch, tool};

const CLIP: Clip =
    Clip { seconds: 60, fps: 25, gop: 50, b_frames: 0, video_kbps: 1_000, audio: true };
const CLIPS: usize = 60;
const CAPACITY_BYTES: u64 = 1 << 30;
const SLOT_BYTES: u64 = 16 << 20;

fn main() {
    let dir = scratch("hour");
    let ring_path = dir.path().join("ring");
    fs::create_dir(&ring_path).expect("made");
    let identity = RingIdentity::plan(&ring_path, CAPACITY_BYTES, SLOT_BYTES).expect("fits");
    identity.create(&SystemFlash, &ring_path).expect("made");
    let (ring, threads) = open(&ring_path);
    let mut rules = record_all(&["Mp4"]);
    rules["templates"][0]["Mp4Param"]["RecordInterval"] = 7_200.into();
    let mut recording = Recording::begin(&ring, &rules, "d/live/hour", 1);
    let sent = Sent::of_flv(&CLIP.flv());
    (0..CLIPS).for_each(|_| recording.feed(&ring, &sent));

    println!(
        "{:<44} {:>9} {:>10} {:>14}",
        "an MP4 file of one hour", "time ms", "CPU ms", "bytes written"
    );
    measure("edgerec: the stream ends, the file is finished", Path::new("/"), || {
        recording.end(&ring)
    });
    let file = ring.catalog.call_blocking(|state| state.files()).expect("listed").remove(0);
    let clip = Arc::new(ring.open_whole_file_clip(file.id).expect("it is there"));
    let mut rendering = None;
    measure("edgerec: its index, for the first byte to go out", Path::new("/"), || {
        rendering = Some(render::open(file.format, clip).expect("it opens"));
    });
    let rendering = rendering.expect("opened");
    let first = dir.path().join("first.mp4");
    write_out(&*rendering, &first);
    let whole = dir.path().join("whole.mp4");
    measure("ffmpeg -c copy -movflags +faststart", &whole, || {
        let mut command = Command::new(tool("ffmpeg"));
        command.args(["-v", "error", "-nostdin", "-i"]).arg(&first);
        run_ok(command.args(["-c", "copy", "-movflags", "+faststart"]).arg(&whole));
    });
    threads.close(&ring);
}

/// Prints what `work` takes, and how long the file is that it wrote.
fn measure(what: &str, wrote: &Path, work: impl FnOnce()) {
    let cpu = || meter::processes(&[std::process::id()]).expect("/proc is there").cpu_s;
    let (before, began) = (cpu(), Instant::now());
    work();
    let (time, cpu) = (began.elapsed(), cpu() - before);
    let bytes = fs::metadata(wrote).ok().filter(fs::Metadata::is_file).map_or(0, |file| file.len());
    println!("{what:<44} {:>9} {:>10.0} {bytes:>14}", time.as_millis(), cpu * 1_000.0);
}

fn write_out(rendering: &dyn render::Rendering, path: &Path) {
    use std::io::Write;
    let mut file = fs::File::create_new(path).expect("made");
    let (len, mut at) = (rendering.objects()[0].len, 0);
    let mut buffer = vec![0; 1 << 20];
    while at < len {
        let piece = usize::try_from((len - at).min(1 << 20)).expect("small");
        rendering.read_at(0, at, &mut buffer[..piece]).expect("read");
        file.write_all(&buffer[..piece]).expect("written");
        at += piece as u64;
    }
}
