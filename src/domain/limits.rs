//! Every bound that is not configuration, in one place, with how they relate.

/// Longest part of a stream key, in bytes.
pub const STREAM_KEY_PART_BYTES_MAX: usize = 255;
/// Streams recorded at the same time.
pub const STREAMS_MAX: usize = 256;
/// Tracks of a session.
pub const TRACKS_MAX: usize = 16;
/// A fragment is closed when it has this many media bytes.
pub const FRAGMENT_BYTES_TARGET: usize = 1 << 20;
/// A larger sample is dropped and entered in the ledger.
pub const SAMPLE_BYTES_MAX: usize = 8 << 20;
/// A fragment is closed after this much arrival time, in milliseconds.
pub const FRAGMENT_AGE_MS_MAX: u64 = 1_000;
/// A key frame closes a fragment that is at least this old, in milliseconds.
pub const FRAGMENT_AGE_MS_MIN: u64 = 250;
/// Samples in one fragment; one more closes it.
pub const FRAGMENT_SAMPLES_MAX: usize = 4_096;
/// Everything on flash begins on a page, in bytes.
pub const PAGE_BYTES: u64 = 4_096;
/// Fragments of one stream on their way to the writer thread (the queue type holds one less than
/// its size).
pub const LANE_FRAGMENTS: usize = 8;
/// Recordings that one stream feeds at the same time.
pub const RECORDINGS_PER_STREAM_MAX: usize = 64;
/// Longest codec configuration, in bytes.
pub const CODEC_CONFIG_BYTES_MAX: usize = 16 << 10;
/// Longest script data that is kept, in bytes.
pub const SCRIPT_DATA_BYTES_MAX: usize = 16 << 10;
/// Files without media in the ring that the catalog still lists.
pub const LISTED_FILES_MAX: u32 = 10_000;
/// Size of the outbox, what was told included, in units of 2 KiB: nearly every event has one.
pub const NOTICES_MAX: u32 = 20_000;
/// Entries of each ledger.
pub const LEDGER_ENTRIES_MAX: u32 = 100_000;
/// A step back of media time by more than this begins a new timeline, in milliseconds.
pub const TIMELINE_STEP_BACK_MS: i64 = 1_000;
/// A step forward of media time by more than this begins a new timeline, in milliseconds.
pub const TIMELINE_STEP_FORWARD_MS: i64 = 10_000;
/// A publisher that sends nothing for this long is closed, in milliseconds.
pub const PUBLISHER_SILENT_MS: u64 = 10_000;
/// A second publisher is refused while the first delivered within this time, in milliseconds.
pub const PUBLISHER_ALIVE_MS: u64 = 2_000;
/// From this size on an object is uploaded in parts; a smaller one is a single request.
pub const MULTIPART_BYTES_MIN: u64 = 16 << 20;
/// What a rendering may hold in memory, in bytes.
pub const RENDERING_BYTES_MAX: usize = 4 << 20;

const _: () = assert!(FRAGMENT_AGE_MS_MIN < FRAGMENT_AGE_MS_MAX);
const _: () = assert!(FRAGMENT_BYTES_TARGET <= SAMPLE_BYTES_MAX);
const _: () = assert!(PUBLISHER_ALIVE_MS < PUBLISHER_SILENT_MS);
/// The on-flash format gives the length of a configuration 16 bits.
const _: () = assert!(CODEC_CONFIG_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(SCRIPT_DATA_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(LANE_FRAGMENTS.is_power_of_two());
