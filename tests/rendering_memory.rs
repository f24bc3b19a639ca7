//! A rendering of twelve hours stays within its memory, and reading on costs one look at each
//! `moof`.
//!
//! In a test binary of its own, because it counts what is allocated.

// A test that cannot go on fails.
#![allow(clippy::unwrap_used)]
// A counting allocator cannot be written without.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use edgerec::domain::files::FileFormat;
use edgerec::domain::limits::RENDERING_BYTES_MAX;
use edgerec::domain::sample::{Codec, Sample, Shape, Track, TrackId};
use edgerec::media::clip::{ClipError, ClipPart, ClipSource};
use edgerec::media::fmp4::fragment_head;
use edgerec::media::render::{self, Rendering};

struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is handed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = HELD.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(held, Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Twelve hours in the shortest fragments there are.
const FRAGMENTS: u32 = 12 * 3_600 * 4;
const FRAGMENT_MS: u64 = 250;
const PICTURES: usize = 6;
const PICTURE_BYTES: usize = 20_000;
const SOUND_BYTES: usize = 300;

/// A clip made up on the spot: one `moof` with its times moved on.
struct Synthetic {
    parts: [ClipPart; 1],
    head: Vec<u8>,
    times: Vec<usize>,
    looks: AtomicU64,
}

impl Synthetic {
    fn new() -> Self {
        let video = Track {
            id: TrackId(1),
            codec: Codec::H264,
            timescale: 1_000,
            config: Bytes::from_static(include_bytes!("data/codec/x264-high.avcc")),
            shape: Shape::Video { width: 192, height: 108 },
        };
        let audio = Track {
            id: TrackId(2),
            codec: Codec::Aac,
            timescale: 1_000,
            config: Bytes::from_static(&[0x12, 0x10]),
            shape: Shape::Audio { sample_rate: 44_100, channels: 2 },
        };
        let sample = |track, at: usize, of: usize, size| {
            let dts = (at as i64 * FRAGMENT_MS as i64) / of as i64;
            let pts = dts + if track == 1 { 80 - at as i64 } else { 0 };
            let data = Bytes::from(vec![0; size + at]);
            Sample { track: TrackId(track), dts, pts, key: track == 2 || at == 0, data }
        };
        let pictures: Vec<Sample> =
            (0..PICTURES).map(|at| sample(1, at, PICTURES, PICTURE_BYTES)).collect();
        let sounds: Vec<Sample> = (0..11).map(|at| sample(2, at, 11, SOUND_BYTES)).collect();
        let mut head = fragment_head(0, &[(&video, &pictures), (&audio, &sounds)]);
        head.truncate(head.len() - 8);
        let times = (0..head.len() - 4).filter(|at| &head[*at..*at + 4] == b"tfdt");
        let times = times.map(|at| at + 8).collect();
        let part = ClipPart {
            tracks: Arc::from([video, audio]),
            script_data: Bytes::new(),
            first_fragment: 0,
            fragments: FRAGMENTS,
            discontinuity: false,
        };
        Synthetic { parts: [part], head, times, looks: AtomicU64::new(0) }
    }
}

impl ClipSource for Synthetic {
    fn parts(&self) -> &[ClipPart] {
        &self.parts
    }

    fn moof(&self, fragment: u32) -> Result<Vec<u8>, ClipError> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let mut head = self.head.clone();
        for at in &self.times {
            let time = u64::from(fragment) * FRAGMENT_MS;
            head[*at..*at + 8].copy_from_slice(&time.to_be_bytes());
        }
        Ok(head)
    }

    fn check(&self, _: u32) -> Result<(), ClipError> {
        Ok(())
    }

    fn read_payload(&self, fragment: u32, offset: u32, buf: &mut [u8]) -> Result<(), ClipError> {
        for (at, byte) in buf.iter_mut().enumerate() {
            *byte = (offset as usize + at) as u8 ^ fragment as u8;
        }
        Ok(())
    }
}

/// Opens and reads here and there; returns the peak of what was held.
fn peak_of(format: FileFormat, clip: &Arc<Synthetic>) -> usize {
    let mut buf = vec![0; 64 << 10];
    let before = HELD.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    let rendering = render::open(format, Arc::clone(clip) as Arc<dyn ClipSource>).unwrap();
    for object in [0, rendering.objects().len() / 2, rendering.objects().len() - 1] {
        let len = rendering.objects()[object].len;
        for step in 0..16 {
            let room = len.saturating_sub(buf.len() as u64);
            let count = len.min(buf.len() as u64) as usize;
            rendering.read_at(object, room * step / 15, &mut buf[..count]).unwrap();
        }
    }
    let peak = PEAK.load(Ordering::Relaxed) - before;
    assert_reading_on_is_cheap(format, &*rendering, clip, &mut buf);
    peak
}

/// Sixteen megabytes from the middle of the largest object.
fn assert_reading_on_is_cheap(
    format: FileFormat,
    rendering: &dyn Rendering,
    clip: &Synthetic,
    buf: &mut [u8],
) {
    let objects = rendering.objects();
    let object = (0..objects.len()).max_by_key(|at| objects[*at].len).unwrap();
    let len = objects[object].len;
    let mut offset = len / 2;
    rendering.read_at(object, offset, buf).unwrap();
    let before = clip.looks.load(Ordering::Relaxed);
    let mut read = 0;
    while read < 16 << 20 && offset + 2 * buf.len() as u64 <= len {
        offset += buf.len() as u64;
        rendering.read_at(object, offset, buf).unwrap();
        read += buf.len();
    }
    let looks = clip.looks.load(Ordering::Relaxed) - before;
    let per_fragment = if format == FileFormat::Aac { 11 * SOUND_BYTES } else { 120_000 };
    let fragments = (read / per_fragment) as u64 + 2;
    assert!(looks <= fragments, "{format}: {looks} looks at moofs for {fragments} fragments");
}

#[test]
fn twelve_hours_fit_in_the_bound() {
    let clip = Arc::new(Synthetic::new());
    for format in FileFormat::ALL {
        let peak = peak_of(format, &clip);
        assert!(peak <= RENDERING_BYTES_MAX, "{format}: {peak} bytes");
        assert!(peak >= 100_000, "{format}: only {peak} bytes counted");
    }
}
