//! MPEG transport stream: packets, tables and PES headers.
//!
//! Reference: ITU-T H.222.0 (ISO/IEC 13818-1) 2.4.

pub mod packet;
pub mod tables;

/// Bytes of a packet.
pub const PACKET_BYTES: usize = 188;
/// Bytes of a packet behind its header.
pub const BODY_BYTES: usize = 184;
/// Ticks a second of PTS, DTS and the base of PCR.
pub const CLOCK_HZ: u32 = 90_000;
