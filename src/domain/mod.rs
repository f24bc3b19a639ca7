//! What the product means, and nothing else: no clock, socket, file, async or log. Time and
//! randomness come in as arguments.

pub mod address;
pub mod backoff;
pub mod contract_time;
pub mod decode_order;
pub mod document;
pub mod due;
pub mod eviction;
pub mod faults;
pub mod file_name;
pub mod files;
pub mod fleet;
pub mod ids;
pub mod limits;
pub mod log_pace;
pub mod matching;
pub mod media_terms;
pub mod notice;
pub mod origin;
pub mod programme;
pub mod record_watch;
pub mod recording;
pub mod restart_plan;
pub mod rule_set;
pub mod sample;
pub mod secret;
pub mod service;
pub mod source;
pub mod splice;
pub mod stream_key;
pub mod stream_watch;
pub mod task;
pub mod template;
pub mod time;
pub mod timeline;
pub mod upload_order;
