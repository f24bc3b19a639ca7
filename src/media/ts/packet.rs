//! Packets with their adaptation fields, and PES headers.

use crate::media::ts::{BODY_BYTES, PACKET_BYTES};

/// Longest PES header that is written: with PTS and DTS.
pub const PES_HEADER_BYTES_MAX: usize = 19;
/// Bytes of an adaptation field with flags only.
pub const FLAGS_BYTES: usize = 2;
/// Bytes that a PCR adds.
pub const PCR_BYTES: usize = 6;

/// The front of a packet.
#[derive(Debug, Clone, Copy)]
pub struct Front {
    /// Which stream.
    pub pid: u16,
    /// A PES packet or section starts here.
    pub unit_start: bool,
    /// Continuity counter, modulo 16.
    pub counter: u8,
    /// Decoding can start here.
    pub random_access: bool,
    /// Program clock in ticks of 90 kHz, modulo 2^33.
    pub pcr: Option<i64>,
}

/// Writes a packet. `payload` must leave room for what `front` asks for; what is left over is
/// filled by a longer adaptation field.
pub fn write_packet(out: &mut [u8; PACKET_BYTES], front: &Front, payload: &[u8]) {
    let payload = &payload[..payload.len().min(BODY_BYTES)];
    let field = BODY_BYTES - payload.len();
    let control = if field > 0 { 0x30 } else { 0x10 };
    out[0] = 0x47;
    out[1] = u8::from(front.unit_start) << 6 | (front.pid >> 8) as u8 & 0x1f;
    out[2] = front.pid as u8;
    out[3] = control | front.counter & 0x0f;
    if field > 0 {
        out[4] = (field - 1) as u8;
        out[5..4 + field].fill(0xff);
        if field >= FLAGS_BYTES {
            out[5] = u8::from(front.random_access) << 6;
        }
        if let Some(pcr) = front.pcr.filter(|_| field >= FLAGS_BYTES + PCR_BYTES) {
            out[5] |= 0x10;
            let bits = (pcr as u64 & 0x1_ffff_ffff) << 15 | 0x7e00;
            out[6..12].copy_from_slice(&bits.to_be_bytes()[2..]);
        }
    }
    out[4 + field..].copy_from_slice(payload);
}

/// Length of the PES header for these times.
#[must_use]
pub fn pes_header_len(pts: i64, dts: i64) -> usize {
    if pts == dts { 14 } else { PES_HEADER_BYTES_MAX }
}

/// A PES header for `content_len` bytes of one access unit; times in ticks of 90 kHz, written
/// modulo 2^33. Only video may be too long for the length field (it is 0 then).
#[must_use]
pub fn pes_header(
    stream_id: u8,
    pts: i64,
    dts: i64,
    content_len: u64,
) -> ([u8; PES_HEADER_BYTES_MAX], usize) {
    let header_len = pes_header_len(pts, dts);
    let times = header_len - 9;
    let rest = content_len.saturating_add(3 + times as u64);
    let [l1, l0] = u16::try_from(rest).unwrap_or(0).to_be_bytes();
    let mut out = [0; PES_HEADER_BYTES_MAX];
    // 0x84: data starts with an access unit (data_alignment_indicator).
    let with_dts = times > 5;
    let flags = if with_dts { 0xc0 } else { 0x80 };
    out[..9].copy_from_slice(&[0, 0, 1, stream_id, l1, l0, 0x84, flags, times as u8]);
    out[9..14].copy_from_slice(&time_field(if with_dts { 3 } else { 2 }, pts));
    if with_dts {
        out[14..19].copy_from_slice(&time_field(1, dts));
    }
    (out, header_len)
}

/// 33 bits of time between marker bits.
fn time_field(prefix: u8, time: i64) -> [u8; 5] {
    // Fifteen bits and a marker.
    let marked = |bits: u64| (bits << 1 | 1) as u16;
    let time = time as u64;
    let [high1, high0] = marked(time >> 15 & 0x7fff).to_be_bytes();
    let [low1, low0] = marked(time & 0x7fff).to_be_bytes();
    [prefix << 4 | (time >> 29 & 0x0e) as u8 | 1, high1, high0, low1, low0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_payload_length_fills_the_packet() {
        for len in 0..=BODY_BYTES {
            let payload = vec![0xab; len];
            let mut out = [0; PACKET_BYTES];
            let front = Front {
                pid: 0x101,
                unit_start: true,
                counter: 17,
                random_access: true,
                pcr: Some((1 << 33) + 5),
            };
            write_packet(&mut out, &front, &payload);
            assert_eq!(out[..3], [0x47, 0x41, 0x01]);
            assert_eq!(out[3] & 0x0f, 1);
            let field = if out[3] & 0x20 == 0 { 0 } else { usize::from(out[4]) + 1 };
            assert_eq!(out[4 + field..], payload);
            if field >= 8 {
                assert_eq!(out[5..12], [0x50, 0, 0, 0, 2, 0xfe, 0]);
            }
        }
    }

    #[test]
    fn times_are_33_bits_between_markers() {
        let (header, len) = pes_header(0xe0, (1 << 33) + 90_000, 90_000 - 1, 1 << 20);
        assert_eq!(len, 19);
        let read = |b: &[u8]| {
            assert!(b[0] & 1 == 1 && b[2] & 1 == 1 && b[4] & 1 == 1);
            i64::from(b[0] >> 1 & 7) << 30
                | i64::from(b[1]) << 22
                | i64::from(b[2] >> 1) << 15
                | i64::from(b[3]) << 7
                | i64::from(b[4] >> 1)
        };
        assert_eq!((read(&header[9..]), read(&header[14..])), (90_000, 89_999));
        assert_eq!(header[4..6], [0, 0]);
        assert_eq!(pes_header(0xc0, 5, 5, 100).0[4..6], [0, 108]);
    }
}
