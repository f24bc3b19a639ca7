//! The power-cut rig: a file system on a device whose every write and flush is logged, so that the
//! power can be cut afterwards at any entry of the log, as often as wanted.
//!
//! 1. [`PowerRig::start`]: qemu's storage daemon exports an image through FUSE and logs; the export
//!    is loop-mounted. All mounts are made in a mount namespace of the calling thread, so nothing is
//!    left behind even if the test is killed.
//! 2. The workload writes on [`PowerRig::mount`]. Every 100 ms a beacon (clock, and what each sender
//!    had sent) is written to a spare block behind the file system, so it lies in the log between
//!    the workload's own writes.
//!    What others are told meanwhile leaves [`Marks`] there, so a cut knows what was said before it.
//! 3. [`PowerRig::stop`] gives the [`PowerLog`]; [`PowerLog::replay`] rebuilds the disk at each cut,
//!    mounts it and lets the caller recover and check.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::block_log::{BlockLog, Cache};
use super::chance::Chance;
use super::disk_export::{EXPORT, export};
use super::mounts::{Mounted, enter_mount_namespace, make_file};
use super::process::{Process, run_ok};
use super::{scratch, tool};

const BEACON_MAGIC: [u8; 8] = *b"edgebcon";
const MARK_MAGIC: [u8; 8] = *b"edgemark";
const BEACON_PERIOD: Duration = Duration::from_millis(100);
/// The block of a beacon or a mark; a page, so that the page cache passes it on as it is.
const BEACON_BYTES: u64 = 4_096;
/// Left free behind the file system.
const SPARE_BYTES: u64 = 1 << 20;
/// Room for the log; the file is sparse.
const LOG_BYTES: u64 = 8 << 30;
const LOG_SECTOR_BYTES: u64 = 512;
/// The image under the log.
const DISK: &str = "disk.img";

/// The rig at work.
pub struct PowerRig {
    // Dropped in this order: clock, mount, daemon, files.
    beacons: Option<BeaconThread>,
    /// `None` where a guest mounts it.
    mounted: Option<Mounted>,
    daemon: Process,
    dir: TempDir,
    image_bytes: u64,
}

impl PowerRig {
    /// Makes an empty ext4 (with its defaults) of nearly `image_bytes` and mounts it over a logged
    /// device. Fails the test when it does not run as root.
    #[track_caller]
    pub fn start(name: &str, image_bytes: u64) -> PowerRig {
        let blocks_kib = (image_bytes - SPARE_BYTES) / 1_024;
        let mut mkfs = Command::new(tool("mkfs.ext4"));
        mkfs.args(["-q", "-F", DISK]).arg(format!("{blocks_kib}k"));
        let mut rig = PowerRig::with(name, image_bytes, |dir| {
            run_ok(mkfs.current_dir(dir));
        });
        rig.mount_it();
        rig
    }

    /// Goes on from the disk of an image, which stays as it is; [`Self::mount_it`] mounts it.
    #[track_caller]
    pub fn go_on(name: &str, image: &Path) -> PowerRig {
        let bytes = std::fs::metadata(image).expect("the image is there").len();
        PowerRig::with(name, bytes, |dir| copy_sparse(image, &dir.join(DISK)))
    }

    /// Mounts what is on the logged device.
    #[track_caller]
    pub fn mount_it(&mut self) {
        self.mounted = Some(Mounted::new(&self.device(), &self.dir.path().join("mnt")));
    }

    /// Makes an empty f2fs (with its defaults) of nearly `image_bytes` on a logged device, for a
    /// guest to mount: [`Self::device`].
    #[track_caller]
    pub fn start_f2fs(name: &str, image_bytes: u64) -> PowerRig {
        let mut mkfs = Command::new(tool("mkfs.f2fs"));
        mkfs.args(["-q", DISK]).arg(((image_bytes - SPARE_BYTES) / 512).to_string());
        PowerRig::with(name, image_bytes, |dir| {
            run_ok(mkfs.current_dir(dir));
        })
    }

    /// The logged device with what `fill` makes of its empty image, [`DISK`] in the rig's folder.
    fn with(name: &str, image_bytes: u64, fill: impl FnOnce(&Path)) -> PowerRig {
        enter_mount_namespace();
        let dir = scratch(name);
        let at = |file: &str| dir.path().join(file);
        make_file(&at(DISK), image_bytes);
        fill(dir.path());
        copy_sparse(&at(DISK), &at("first.img"));
        make_file(&at("log.img"), LOG_BYTES);
        let daemon = start_daemon(dir.path(), image_bytes);
        PowerRig { beacons: None, mounted: None, daemon, dir, image_bytes }
    }

    /// The logged device, for a guest that was started after the rig.
    pub fn device(&self) -> PathBuf {
        self.dir.path().join(EXPORT)
    }

    /// The file system under test.
    pub fn mount(&self) -> &Path {
        &self.mounted.as_ref().expect("it is not a guest's").at
    }

    /// Starts the beacons. `sent_ms` says what each sender has sent so far, in milliseconds of
    /// media time.
    pub fn start_beacons(&mut self, sent_ms: impl Fn() -> Vec<i64> + Send + 'static) {
        let device = File::options().write(true).open(self.device());
        let device = device.expect("the export opens for writing");
        let offset = self.image_bytes - BEACON_BYTES;
        let began = Instant::now();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut stops = false;
            loop {
                let at_ms = u64::try_from(began.elapsed().as_millis()).expect("tests are short");
                let block = Beacon { at_ms, sent_ms: sent_ms() }.to_block();
                device.write_all_at(&block, offset).expect("the beacon can be written");
                if stops {
                    return;
                }
                let waited = stopped.recv_timeout(BEACON_PERIOD);
                // The last one comes when the run is over.
                stops = waited != Err(mpsc::RecvTimeoutError::Timeout);
            }
        });
        self.beacons = Some(BeaconThread { stop: Some(stop), thread: Some(thread) });
    }

    /// What leaves marks in the log.
    pub fn marks(&self) -> Marks {
        Marks { device: self.dir.path().join(EXPORT), offset: self.image_bytes - 2 * BEACON_BYTES }
    }

    /// Ends the run, which must have no process on the mount any more, and reads the log.
    #[track_caller]
    pub fn stop(self) -> PowerLog {
        let PowerRig { beacons, mounted, mut daemon, dir, image_bytes } = self;
        drop(beacons.expect("beacons were started"));
        if let Some(mounted) = mounted {
            run_ok(Command::new(tool("sync")).arg("-f").arg(&mounted.at));
            mounted.unmount();
        }
        // The log's entry count is written with a flush.
        let device = open_image(&dir.path().join(EXPORT));
        device.sync_all().expect("the device takes a flush");
        drop(device);
        daemon.terminate(Duration::from_secs(20));
        let log = BlockLog::open(&dir.path().join("log.img")).expect("qemu's log can be read");
        let beacons = find_beacons(&log);
        assert!(beacons.len() > 1, "{} beacons in the log", beacons.len());
        let marks = find_marks(&log);
        PowerLog { log, beacons, marks, file_system_bytes: image_bytes - SPARE_BYTES, dir }
    }
}

/// Leaves marks in the log, each between what the box wrote before and after it. Only for threads
/// and processes that were started after the rig: they see its mounts.
#[derive(Debug, Clone)]
pub struct Marks {
    /// The device under the file system.
    pub device: PathBuf,
    /// Where on it a mark is written, in bytes: a page of eight bytes of magic, eight of the kind
    /// (ASCII, zeros behind it) and a number (u64, little-endian), zeros behind it.
    pub offset: u64,
}

impl Marks {
    /// Leaves a mark; it is in the log when this returns. A kind has at most eight letters.
    #[track_caller]
    pub fn leave(&self, kind: &str, number: u64) {
        let mut block = MARK_MAGIC.to_vec();
        block.extend(kind.as_bytes());
        block.resize(16, 0);
        block.extend(number.to_le_bytes());
        block.resize(BEACON_BYTES as usize, 0);
        let device = File::options().write(true).open(&self.device);
        let device = device.expect("the export opens for writing");
        device.write_all_at(&block, self.offset).expect("the mark can be written");
    }
}

/// A finished run, ready to be cut.
pub struct PowerLog {
    log: BlockLog,
    /// With the index of the log entry that holds it.
    beacons: Vec<(usize, Beacon)>,
    /// Kind and number of each mark, with the index of its log entry.
    marks: Vec<(usize, String, u64)>,
    file_system_bytes: u64,
    dir: TempDir,
}

/// One power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// How many entries of the log the device had got.
    pub entries: usize,
    /// What its cache did.
    pub cache: Cache,
    /// When it was, in milliseconds after the beacons began; never early, at most a beacon late.
    pub at_ms: u64,
    /// What each sender had sent by then, in milliseconds; never less than the truth.
    pub sent_ms: Vec<i64>,
}

impl Cut {
    /// How much of each stream is lost when this much was kept, in milliseconds.
    pub fn lost_ms(&self, kept_ms: &[i64]) -> Vec<i64> {
        assert_eq!(self.sent_ms.len(), kept_ms.len(), "one position per stream");
        self.sent_ms.iter().zip(kept_ms).map(|(sent, kept)| (sent - kept).max(0)).collect()
    }
}

impl PowerLog {
    /// The log itself.
    pub fn log(&self) -> &BlockLog {
        &self.log
    }

    /// Bytes that the file system wrote from the first beacon on, to the end.
    pub fn written_bytes(&self) -> u64 {
        let entries = &self.log.entries()[self.beacons[0].0..];
        let file_system = entries.iter().filter(|entry| entry.offset < self.file_system_bytes);
        file_system.filter(|entry| entry.is_write()).map(|entry| entry.len).sum()
    }

    /// Chooses cuts from `from_ms` on: even ones at a random instant, odd ones at a random entry,
    /// the cache models in turn. In the order of the log.
    pub fn choose_cuts(&self, count: usize, from_ms: u64, chance: &mut Chance) -> Vec<Cut> {
        let first = self.beacons.iter().position(|(_, beacon)| beacon.at_ms >= from_ms);
        let first = first.expect("the run is longer than that");
        let gaps: Vec<_> = self.beacons[first..].windows(2).map(|two| (&two[0], &two[1])).collect();
        let begin = gaps.first().expect("two beacons are left").0.0;
        let end = gaps.last().expect("two beacons are left").1.0;
        let pick = |chance: &mut Chance, from: usize, to: usize| {
            from + 1 + usize::try_from(chance.below((to - from) as u64)).expect("fits a usize")
        };
        let mut cuts: Vec<Cut> = (0..count)
            .map(|number| {
                let entries = if number % 2 == 0 {
                    let gap = gaps[pick(chance, 0, gaps.len()) - 1];
                    pick(chance, gap.0.0, gap.1.0)
                } else {
                    pick(chance, begin, end)
                };
                self.cut_at(entries, Cache::ALL[number / 2 % 3])
            })
            .collect();
        cuts.sort_by_key(|cut| cut.entries);
        cuts
    }

    /// Chooses cuts right before or up to three entries behind a mark of these kinds, as many for
    /// each, from `from_ms` on, the cache models in turn. In the order of the log.
    pub fn choose_cuts_at_marks<const KINDS: usize>(
        &self,
        kinds: [&str; KINDS],
        count: usize,
        from_ms: u64,
        chance: &mut Chance,
    ) -> Vec<Cut> {
        let last = self.beacons.last().expect("there are beacons").0;
        let marks = kinds.map(|kind| {
            let of = self.marks.iter().filter(|(_, of, _)| of == kind).map(|(entry, ..)| *entry);
            let in_time = |entry: &usize| {
                entry + 4 < last && self.cut_at(*entry, Cache::Prefix).at_ms >= from_ms
            };
            let marks: Vec<usize> = of.filter(in_time).collect();
            assert!(!marks.is_empty(), "there are no marks of {kind}");
            marks
        });
        let pick = |chance: &mut Chance, below: usize| {
            usize::try_from(chance.below(below as u64)).expect("fits a usize")
        };
        let mut cuts: Vec<Cut> = (0..count)
            .map(|number| {
                let marks = &marks[number % KINDS];
                let mark = marks[pick(chance, marks.len())];
                self.cut_at(mark + pick(chance, 5), Cache::ALL[number / KINDS % 3])
            })
            .collect();
        cuts.sort_by_key(|cut| cut.entries);
        cuts
    }

    /// The number of the last mark of a kind that was there at a cut; 0 if there was none.
    pub fn marked(&self, cut: &Cut, kind: &str) -> u64 {
        let before = self.marks.partition_point(|(entry, ..)| *entry < cut.entries);
        let last = self.marks[..before].iter().rfind(|(_, of, _)| of == kind);
        last.map_or(0, |(.., number)| *number)
    }

    /// The cut after this many entries, which must lie before the last beacon.
    pub fn cut_at(&self, entries: usize, cache: Cache) -> Cut {
        let next = self.beacons.partition_point(|(entry, _)| *entry < entries);
        let (_, beacon) = &self.beacons[next];
        Cut { entries, cache, at_ms: beacon.at_ms, sent_ms: beacon.sent_ms.clone() }
    }

    /// Rebuilds and mounts the disk at each cut (in the order of the log) and lets `recover` work on
    /// it; gives back what it said.
    #[track_caller]
    pub fn replay<T>(
        &self,
        cuts: &[Cut],
        chance: &mut Chance,
        mut recover: impl FnMut(&Cut, &Path) -> T,
    ) -> Vec<T> {
        let at = self.dir.path().join("cut");
        self.rebuild(cuts, chance, |cut| {
            let mounted = Mounted::new(&self.cut_image(), &at);
            let said = recover(cut, &mounted.at);
            mounted.unmount();
            said
        })
    }

    /// The disk at a cut is here, the same file for each.
    pub fn cut_image(&self) -> PathBuf {
        self.dir.path().join("cut.img")
    }

    /// Rebuilds the disk at each cut (in the order of the log) and lets `recover` look at
    /// [`Self::cut_image`]; gives back what it said.
    #[track_caller]
    pub fn rebuild<T>(
        &self,
        cuts: &[Cut],
        chance: &mut Chance,
        mut recover: impl FnMut(&Cut) -> T,
    ) -> Vec<T> {
        let at = |file: &str| self.dir.path().join(file);
        copy_sparse(&at("first.img"), &at("flushed.img"));
        let flushed_image = open_image(&at("flushed.img"));
        let mut flushed = 0;
        let mut results = Vec::with_capacity(cuts.len());
        for cut in cuts {
            let certain = self.log.flushed_before(cut.entries);
            assert!(certain >= flushed, "cuts come in the order of the log");
            self.log.apply(&flushed_image, flushed, certain).expect("the log applies");
            flushed = certain;
            copy_sparse(&at("flushed.img"), &self.cut_image());
            let image = open_image(&self.cut_image());
            self.log
                .apply_unflushed(&image, flushed, cut.entries, cut.cache, chance)
                .expect("the log applies");
            drop(image);
            results.push(recover(cut));
        }
        results
    }
}

/// The clock in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Beacon {
    at_ms: u64,
    sent_ms: Vec<i64>,
}

impl Beacon {
    fn to_block(&self) -> Vec<u8> {
        let mut block = BEACON_MAGIC.to_vec();
        block.extend(self.at_ms.to_le_bytes());
        block.extend((self.sent_ms.len() as u64).to_le_bytes());
        block.extend(self.sent_ms.iter().flat_map(|ms| ms.to_le_bytes()));
        block.resize(BEACON_BYTES as usize, 0);
        block
    }

    fn from_block(block: &[u8]) -> Option<Beacon> {
        let mut numbers = block.strip_prefix(&BEACON_MAGIC)?.chunks_exact(8).map(|eight| {
            let mut number = [0; 8];
            number.copy_from_slice(eight);
            u64::from_le_bytes(number)
        });
        let at_ms = numbers.next()?;
        let streams = usize::try_from(numbers.next()?).ok()?;
        let sent_ms: Vec<i64> = numbers.take(streams).map(u64::cast_signed).collect();
        (sent_ms.len() == streams).then_some(Beacon { at_ms, sent_ms })
    }
}

fn find_beacons(log: &BlockLog) -> Vec<(usize, Beacon)> {
    let entries = log.entries().iter().enumerate().filter(|(_, entry)| entry.len == BEACON_BYTES);
    entries
        .filter_map(|(index, entry)| {
            let block = log.data_start(entry, BEACON_BYTES).expect("the log can be read");
            Some((index, Beacon::from_block(&block)?))
        })
        .collect()
}

fn find_marks(log: &BlockLog) -> Vec<(usize, String, u64)> {
    let entries = log.entries().iter().enumerate().filter(|(_, entry)| entry.len == BEACON_BYTES);
    entries
        .filter_map(|(index, entry)| {
            let block = log.data_start(entry, 24).expect("the log can be read");
            let (kind, number) = block.strip_prefix(&MARK_MAGIC)?.split_at(8);
            let kind = String::from_utf8_lossy(kind).trim_end_matches('\0').to_owned();
            Some((index, kind, u64::from_le_bytes(number.try_into().ok()?)))
        })
        .collect()
}

/// The thread that writes beacons, with its end.
struct BeaconThread {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for BeaconThread {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if matches!(ended, Some(Err(_))) && !std::thread::panicking() {
            panic!("the beacon thread failed");
        }
    }
}

fn start_daemon(dir: &Path, image_bytes: u64) -> Process {
    let at = |file: &str| dir.join(file).to_string_lossy().into_owned();
    // The host's own disk needs no flush: what counts is the log.
    let nodes = [
        format!("driver=file,node-name=disk,cache.no-flush=on,filename={}", at(DISK)),
        format!("driver=file,node-name=log,cache.no-flush=on,filename={}", at("log.img")),
        format!(
            "driver=blklogwrites,node-name=logged,file=disk,log=log,log-sector-size={LOG_SECTOR_BYTES}"
        ),
    ];
    let graph: Vec<String> =
        nodes.into_iter().flat_map(|node| ["--blockdev".to_owned(), node]).collect();
    export(dir, &graph, "logged", image_bytes)
}

fn open_image(path: &Path) -> File {
    File::options().write(true).open(path).expect("the image opens")
}

fn copy_sparse(from: &Path, to: &Path) {
    run_ok(Command::new(tool("cp")).args(["--sparse=always", "--reflink=auto"]).arg(from).arg(to));
}
