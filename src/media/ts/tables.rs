//! Program association and program map: what a transport stream has.

use crate::media::ts::PACKET_BYTES;
use crate::media::ts::packet::{Front, write_packet};

/// Packets of both tables.
pub const TABLES_BYTES: usize = 2 * PACKET_BYTES;
/// Streams that fit the one packet of the program map.
pub const STREAMS_MAX: usize = 16;
/// PID of the program map.
const PMT_PID: u16 = 0x1000;
/// The only program.
const PROGRAM: u16 = 1;

/// A stream of the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamEntry {
    /// `stream_type`: 0x1b H.264, 0x24 H.265, 0x0f AAC in ADTS.
    pub stream_type: u8,
    /// Its PID.
    pub pid: u16,
}

/// Both tables as packets; at most [`STREAMS_MAX`] streams are named.
#[must_use]
pub fn tables(streams: &[StreamEntry], pcr_pid: u16, counter: u8) -> [u8; TABLES_BYTES] {
    let mut pat = vec![0, 0x00, 0, 0, 0, 1, 0xc1, 0, 0];
    pat.extend_from_slice(&PROGRAM.to_be_bytes());
    pat.extend_from_slice(&(0xe000 | PMT_PID).to_be_bytes());
    let mut pmt = vec![0, 0x02, 0, 0];
    pmt.extend_from_slice(&PROGRAM.to_be_bytes());
    pmt.extend_from_slice(&[0xc1, 0, 0]);
    pmt.extend_from_slice(&(0xe000 | pcr_pid).to_be_bytes());
    pmt.extend_from_slice(&[0xf0, 0]);
    for stream in streams.iter().take(STREAMS_MAX) {
        pmt.push(stream.stream_type);
        pmt.extend_from_slice(&(0xe000 | stream.pid).to_be_bytes());
        pmt.extend_from_slice(&[0xf0, 0]);
    }
    let mut out = [0; TABLES_BYTES];
    for (at, (pid, section)) in [(0, pat), (PMT_PID, pmt)].into_iter().enumerate() {
        let mut packet = [0; PACKET_BYTES];
        let front = Front { pid, unit_start: true, counter, random_access: false, pcr: None };
        write_packet(&mut packet, &front, &finished(section));
        out[at * PACKET_BYTES..(at + 1) * PACKET_BYTES].copy_from_slice(&packet);
    }
    out
}

/// Fills in the section length and appends the CRC. The first byte is the pointer field.
fn finished(mut section: Vec<u8>) -> Vec<u8> {
    let len = (section.len() - 4 + 4) as u16;
    section[2..4].copy_from_slice(&(0xb000 | len).to_be_bytes());
    let crc = crc32_mpeg(&section[1..]);
    section.extend_from_slice(&crc.to_be_bytes());
    // Behind a section only stuffing bytes may follow in the packet.
    section.resize(crate::media::ts::BODY_BYTES, 0xff);
    section
}

/// CRC-32/MPEG-2.
fn crc32_mpeg(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| {
            if crc >> 31 == 1 { crc << 1 ^ 0x04c1_1db7 } else { crc << 1 }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_the_catalogue() {
        assert_eq!(crc32_mpeg(b"123456789"), 0x0376_e6e7);
    }

    #[test]
    fn sixteen_streams_fit_and_the_crc_over_a_section_is_zero() {
        let streams = [StreamEntry { stream_type: 0x1b, pid: 0x100 }; 16];
        let out = tables(&streams, 0x100, 3);
        for packet in out.chunks(PACKET_BYTES) {
            assert_eq!((packet[0], packet[3], packet[4]), (0x47, 0x13, 0));
            let len = usize::from(packet[6] & 0x0f) << 8 | usize::from(packet[7]);
            assert_eq!(crc32_mpeg(&packet[5..8 + len]), 0);
        }
    }
}
