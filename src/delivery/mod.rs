//! Files out: a durable queue's worker brings waiting files to a target and counts a file as
//! delivered only when the target has proved that it holds the same bytes.

pub mod board;
pub mod checksum;
pub mod directory;
pub mod error;
pub mod http;
pub mod path;
pub mod progress;
pub mod s3;
pub mod settings;
pub mod shelf;
pub mod target;
pub mod worker;
