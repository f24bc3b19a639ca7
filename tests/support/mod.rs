//! What several tests share.

pub mod memory_shelf;
pub mod s3_server;
