//! Delivery against real targets: folders, an S3 server and a VOD platform that check every
//! signature with code that is not ours. The reference is what was put on the shelf.
#![allow(clippy::unwrap_used, missing_docs)]

mod support;

#[path = "delivery/backlog.rs"]
mod backlog;
#[path = "delivery/bench.rs"]
mod bench;
#[path = "delivery/conformance.rs"]
mod conformance;
#[path = "delivery/directory.rs"]
mod directory;
#[path = "delivery/hostile.rs"]
mod hostile;
#[path = "delivery/leave.rs"]
mod leave;
#[path = "delivery/queue.rs"]
mod queue;
#[path = "delivery/s3.rs"]
mod s3;
#[path = "delivery/s3_faults.rs"]
mod s3_faults;
#[path = "delivery/schedule.rs"]
mod schedule;
#[path = "delivery/vod.rs"]
mod vod;
#[path = "delivery/vod_faults.rs"]
mod vod_faults;
