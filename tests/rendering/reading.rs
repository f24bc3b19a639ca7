//! Reading renderings in different ways.

use edgerec::media::render::Rendering;

/// The object, read from start to end in pieces of 64 KiB.
pub fn read_all(rendering: &dyn Rendering, object: usize) -> Vec<u8> {
    let len = usize::try_from(rendering.objects()[object].len).unwrap();
    let mut bytes = vec![0x55; len];
    for (at, piece) in bytes.chunks_mut(64 << 10).enumerate() {
        rendering.read_at(object, (at * (64 << 10)) as u64, piece).unwrap();
    }
    bytes
}

/// Reads at scattered offsets and lengths, each time the same, and compares.
pub fn read_as_it_comes(rendering: &dyn Rendering, object: usize, whole: &[u8]) {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).unwrap()
    };
    for round in 0..200 {
        let offset = random(whole.len());
        let longest = if round % 4 == 0 { whole.len() } else { 700 };
        let len = random((whole.len() - offset + 1).min(longest));
        let mut buf = vec![0xaa; len];
        rendering.read_at(object, offset as u64, &mut buf).unwrap();
        assert!(buf == whole[offset..offset + len], "{len} bytes at {offset} of object {object}");
    }
}

/// Whether the continuity counters of each PID run on without a hole.
pub fn counters_run_on(ts: &[u8]) -> bool {
    let mut last = std::collections::HashMap::new();
    ts.chunks(188).all(|packet| {
        let pid = u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]);
        let counter = packet[3] & 0x0f;
        last.insert(pid, counter).is_none_or(|before| counter == (before + 1) & 0x0f)
    })
}

/// What the PES packets of a PID carry.
pub fn pes_contents(ts: &[u8], pid: u16) -> Vec<Vec<u8>> {
    let mut contents: Vec<Vec<u8>> = Vec::new();
    for packet in ts.chunks(188) {
        if u16::from(packet[1] & 0x1f) << 8 | u16::from(packet[2]) != pid {
            continue;
        }
        let field = if packet[3] & 0x20 == 0 { 0 } else { usize::from(packet[4]) + 1 };
        let mut payload = &packet[4 + field..];
        if packet[1] & 0x40 != 0 {
            assert_eq!(payload[..3], [0, 0, 1]);
            payload = &payload[9 + usize::from(payload[8])..];
            contents.push(Vec::new());
        }
        contents.last_mut().unwrap().extend_from_slice(payload);
    }
    contents
}
