//! Bytes between the socket and a session: fixed room, filled at the end, used at the front.

/// A buffer of fixed size.
#[derive(Debug)]
pub struct ReceiveBuffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl ReceiveBuffer {
    /// A buffer for `len` bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        ReceiveBuffer { bytes: vec![0; len].into_boxed_slice(), start: 0, end: 0 }
    }

    /// Changes the size, which must hold what is in it.
    ///
    /// # Panics
    /// The new size is too small for what is held.
    pub fn resize(&mut self, len: usize) {
        let mut larger = ReceiveBuffer::new(len);
        let held = self.end - self.start;
        larger.bytes[..held].copy_from_slice(self.filled());
        larger.end = held;
        *self = larger;
    }

    /// Room to read into; what is held is moved to the front first, so that all room is one piece.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.bytes[self.end..]
    }

    /// `len` bytes were read into the room.
    ///
    /// # Panics
    /// There was less room.
    pub fn fill(&mut self, len: usize) {
        assert!(len <= self.bytes.len() - self.end, "no more than the room was read");
        self.end += len;
    }

    /// What is held.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// The first `len` bytes are done with.
    ///
    /// # Panics
    /// Fewer are held.
    pub fn consume(&mut self, len: usize) {
        assert!(len <= self.end - self.start, "no more than what is held is used");
        self.start += len;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_comes_first() {
        let mut buffer = ReceiveBuffer::new(4);
        buffer.room()[..4].copy_from_slice(b"abcd");
        buffer.fill(4);
        buffer.consume(3);
        assert_eq!(buffer.room().len(), 3);
        buffer.room()[..1].copy_from_slice(b"e");
        buffer.fill(1);
        buffer.resize(8);
        assert_eq!(buffer.filled(), b"de");
        assert_eq!(buffer.room().len(), 6);
    }
}
