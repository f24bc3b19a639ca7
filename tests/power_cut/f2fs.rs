//! The same on f2fs, which a guest's kernel mounts: the box records there, and recovers there from
//! each cut.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use super::support::broker::free_addr;
use super::support::chance::Chance;
use super::support::edge_box::record_all;
use super::support::ffmpeg::Ffmpeg;
use super::support::guest::Guest;
use super::support::media::Clip;
use super::support::packets::{Packet, assert_stretch_of, packets, video_end_ms};
use super::support::power_rig::{Cut, PowerLog, PowerRig};
use super::support::push::{Pace, push_file};
use super::support::scratch;
use super::{CUTS_FROM_MS, FRAME_MS, IMAGE_BYTES, LOST_MS_MAX, STREAMS, encode, name};

/// Less than on ext4: an emulated processor takes it in.
const CLIP: Clip =
    Clip { seconds: 60, fps: 25, gop: 50, b_frames: 2, video_kbps: 1_000, audio: true };
const CONFIG: &str = "/share/edgerec.toml";
const EVER: &str = "--from 2000-01-01T00:00:00Z --to 2100-01-01T00:00:00Z";

#[test]
#[ignore = "an emulated machine takes minutes"]
fn a_power_cut_on_f2fs_loses_at_most_the_promise_and_breaks_nothing() {
    let count = std::env::var("EDGEREC_F2FS_CUTS").map_or(40, |n| n.parse().expect("a number"));
    let (lost, broken) = cut_and_recover("", count);
    assert!(broken.is_empty(), "broken: {broken:#?}");
    assert!(lost.iter().max() <= Some(&LOST_MS_MAX), "lost more than the promise: {lost:?}");
    assert!(lost.iter().max() > Some(&0), "a rig that never loses anything measures nothing");
}

/// The control: without its group sync the box must lose more, or name what is gone.
#[cfg(feature = "planted-faults")]
#[test]
#[ignore = "an emulated machine takes minutes"]
fn without_its_sync_the_box_makes_the_rig_on_f2fs_go_red() {
    let (lost, broken) = cut_and_recover("EDGEREC_PLANT_NO_SYNC=1", 6);
    println!("without its sync: lost {lost:?} ms, {} broken", broken.len());
    assert!(lost.iter().max() > Some(&LOST_MS_MAX), "the rig did not go red: {lost:?}");
}

/// What cuts lost of each stream, in milliseconds, and what they left damaged, of a box with this
/// environment.
fn cut_and_recover(environment: &str, count: usize) -> (Vec<i64>, Vec<String>) {
    let mut chance = Chance::from_env("power-cut-f2fs");
    let share = scratch("share");
    let log = record(share.path(), environment);
    let sent = packets(&CLIP.flv());
    let cuts = log.choose_cuts(count, CUTS_FROM_MS, &mut chance);
    let mut guest = None;
    let mut broken = Vec::new();
    let lost = log.rebuild(&cuts, &mut chance, |cut: &Cut| {
        // The guest's disk is the file of the first cut, which those after it overwrite.
        let guest = guest.get_or_insert_with(|| Guest::boot(share.path(), &log.cut_image(), &[]));
        let lost_ms = cut.lost_ms(&recover(guest, share.path(), &sent));
        broken.extend(put_away(guest));
        println!("{:?} at {} ms: lost {lost_ms:?} ms", cut.cache, cut.at_ms);
        lost_ms
    });
    let mut lost = lost.concat();
    lost.sort_unstable();
    let (median, most) = (lost[lost.len() / 2], lost[lost.len() - 1]);
    println!("{count} cuts on f2fs: median {median} ms, most {most} ms");
    (lost, broken)
}

/// Records encoders in a guest on a logged device.
fn record(share: &Path, environment: &str) -> PowerLog {
    let mut rig = PowerRig::start_f2fs("power-cut-f2fs", IMAGE_BYTES);
    let rtmp = free_addr();
    fs::write(share.join("rules.json"), record_all(&["Flv"]).to_string()).expect("written");
    fs::write(share.join("edgerec.toml"), config()).expect("written");
    let mut guest = Guest::boot(share, &rig.device(), &[(rtmp, 1935)]);
    guest.does(&format!("mount -t f2fs /dev/vda /data && edgerec format --config {CONFIG}"));
    start_box(&mut guest, environment);
    let clip = CLIP.flv();
    let pushers = encode(&mut rig, |stream| {
        let log = share.join(format!("push-{stream}.log"));
        push_file(&clip, &push_url(rtmp, stream), Pace::Real, &log)
    });
    // What the encoders do without it is not looked at.
    guest.cut();
    drop(pushers);
    rig.stop()
}

fn config() -> String {
    "[box]\nid = \"box-01\"\n[ring]\npath = \"/data/ring\"\ncapacity = \"320MiB\"\nslot = \"4MiB\"\n\
     [rtmp]\nlisten = \"0.0.0.0:1935\"\n[api]\nlisten = \"127.0.0.1:8080\"\n\
     [rules]\nfile = \"/share/rules.json\"\n"
        .to_owned()
}

fn push_url(rtmp: SocketAddr, stream: usize) -> String {
    format!("rtmp://{rtmp}/live/{}", name(stream))
}

/// Starts the box in the guest and waits until it is ready.
fn start_box(guest: &mut Guest, environment: &str) {
    guest.does("rm -f /tmp/out && touch /tmp/out");
    guest.does(&format!(
        "{environment} edgerec run --config {CONFIG} >/tmp/out 2>/tmp/log & echo $! >/tmp/pid"
    ));
    let ready = "for try in $(seq 600); do grep -q ^ready /tmp/out && exit 0; \
                 kill -0 $(cat /tmp/pid) || break; usleep 100000; done; tail /tmp/log; exit 1";
    guest.does(&format!("( {ready} )"));
}

/// Lets the box recover; how far each stream was kept, in milliseconds. What was kept must be, packet
/// for packet, what the encoder sent, and all must decode.
fn recover(guest: &mut Guest, share: &Path, sent: &[Packet]) -> Vec<i64> {
    guest.does("mount -t f2fs /dev/vda /data");
    start_box(guest, "");
    let kept = (0..STREAMS).map(|stream| {
        let name = name(stream);
        let export = format!("export 127.0.0.1/live/{name} {EVER} --format flv -o /tmp/{name}.flv");
        let (status, said) = guest.tries(&format!("edgerec --config {CONFIG} {export}"));
        if status != 0 {
            println!("{name}: nothing kept: {said}");
            return 0;
        }
        guest.does(&format!("rm -f /share/{name}.flv; mv /tmp/{name}.flv /share/"));
        let path = share.join(format!("{name}.flv"));
        Ffmpeg::System.assert_decodes(&path);
        let kept = packets(&path);
        assert_stretch_of(&kept, sent, &name);
        video_end_ms(&kept, FRAME_MS)
    });
    kept.collect()
}

/// Ends the box, and tells what damage it left.
fn put_away(guest: &mut Guest) -> Option<String> {
    guest.does("kill $(cat /tmp/pid); wait $(cat /tmp/pid)");
    let (status, said) = guest.tries(&format!("edgerec fsck --config {CONFIG}"));
    guest.does("umount /data && blockdev --flushbufs /dev/vda");
    (status != 0).then_some(said)
}
