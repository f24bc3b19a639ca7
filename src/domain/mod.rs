//! What the product means, and nothing else: no clock, socket, file, async or log. Time and
//! randomness come in as arguments.

pub mod backoff;
pub mod decode_order;
pub mod files;
pub mod ids;
pub mod limits;
pub mod origin;
pub mod sample;
pub mod stream_key;
pub mod time;
pub mod timeline;
