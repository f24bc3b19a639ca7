//! Reading a socket in beats: what comes in small pieces is read a few times a second, all of it at once.
//!
//! A publisher sends each picture and each piece of sound by itself, some 70 a second, and each would wake the process,
//! be read and be acknowledged. Between two beats the kernel wakes nobody (`SO_RCVLOWAT`, socket(7)) before
//! so much waits that it should be taken at once, or the peer closes. All sockets have the same beats, so that one
//! wake-up serves all of them.

use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::LazyLock;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc::{self, c_int, socklen_t};
use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// From one beat to the next: a picture, at the usual rates.
const BEAT: Duration = Duration::from_millis(40);
/// So many bytes are read before the next beat. Half of the smallest window that the kernel begins with.
const WAITING_BYTES_MAX: c_int = 32 << 10;

static FIRST_BEAT: LazyLock<Instant> = LazyLock::new(Instant::now);

/// When a socket is read.
pub struct Beats {
    next: Pin<Box<Sleep>>,
    /// Nothing came for a beat: the next byte wakes.
    quiet: bool,
}

/// Of a socket of which nothing is known yet.
impl Default for Beats {
    fn default() -> Self {
        Beats { next: Box::pin(sleep_until(next_beat())), quiet: true }
    }
}

impl Beats {
    /// Reads what has come since the last beat, or waits for the next.
    pub fn poll_read(
        &mut self,
        socket: &mut TcpStream,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        // Pending, without a call, unless the kernel has woken us.
        if let Poll::Ready(read) = Pin::new(&mut *socket).poll_read(context, into) {
            self.has_read(socket, into, before);
            return Poll::Ready(read);
        }
        if self.quiet {
            return Poll::Pending;
        }
        ready!(self.next.as_mut().poll(context));
        match recv(socket.as_raw_fd(), into.initialize_unfilled(), MsgFlags::MSG_DONTWAIT) {
            Ok(len) => {
                into.advance(len);
                self.has_read(socket, into, before);
                Poll::Ready(Ok(()))
            }
            Err(Errno::EAGAIN | Errno::EINTR) => {
                self.quiet = true;
                // If something came in between, this wakes us.
                wake_from(socket, 1);
                Poll::Pending
            }
            Err(errno) => Poll::Ready(Err(errno.into())),
        }
    }

    /// Rests until the next beat, unless there was no room for all that has come.
    fn has_read(&mut self, socket: &TcpStream, into: &ReadBuf<'_>, before: usize) {
        if self.quiet {
            self.quiet = false;
            wake_from(socket, WAITING_BYTES_MAX);
        }
        if into.remaining() > 0 && into.filled().len() > before {
            self.next.as_mut().reset(next_beat());
        }
    }
}

/// The first beat that is yet to come.
fn next_beat() -> Instant {
    let now = Instant::now();
    let since = now.duration_since(*FIRST_BEAT).as_micros();
    let into_beat = u64::try_from(since % BEAT.as_micros()).unwrap_or(0);
    now + BEAT - Duration::from_micros(into_beat)
}

/// Where it is refused, each byte wakes, as it does without.
#[expect(unsafe_code, reason = "nix does not know this option")]
fn wake_from(socket: &TcpStream, bytes: c_int) {
    let (value, len) = ((&raw const bytes).cast(), size_of_val(&bytes) as socklen_t);
    // SAFETY: the socket is open, and the value is an int that lives until the call has returned.
    let _ = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVLOWAT, value, len)
    };
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;

    use tokio::net::TcpListener;
    use tokio::time::timeout;

    use super::*;

    /// A socket that has read its first byte, and its peer, whose bytes are with it when `write` has returned.
    struct Reader {
        socket: TcpStream,
        beats: Beats,
        peer: std::net::TcpStream,
    }

    impl Reader {
        async fn after_first_byte() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            let address = listener.local_addr().expect("bound");
            let mut peer = std::net::TcpStream::connect(address).expect("the listener's backlog");
            peer.set_nodelay(true).expect("an open socket");
            let (socket, _) = listener.accept().await.expect("a peer waits");
            peer.write_all(&[1]).expect("there is room");
            let mut reader = Reader { socket, beats: Beats::default(), peer };
            assert_eq!(reader.read().await, (1, Duration::ZERO));
            reader
        }

        fn hears(&mut self, pieces: usize, len: usize) {
            for _ in 0..pieces {
                self.peer.write_all(&vec![1; len]).expect("there is room");
            }
        }

        /// How much a read gave, and after how long.
        async fn read(&mut self) -> (usize, Duration) {
            let mut room = vec![0; 256 << 10];
            let mut into = ReadBuf::new(&mut room);
            let began = Instant::now();
            poll_fn(|context| self.beats.poll_read(&mut self.socket, context, &mut into))
                .await
                .expect("a peer that is there");
            (into.filled().len(), began.elapsed())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pieces_wait_for_the_beat_and_are_read_together() {
        let mut reader = Reader::after_first_byte().await;
        for _ in 0..3 {
            reader.hears(20, 100);
            let (len, waited) = reader.read().await;
            assert_eq!(len, 2000);
            // The clock of the runtime has a resolution of 1 ms.
            assert!(!waited.is_zero() && waited <= BEAT + Duration::from_millis(1), "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fills_the_window_is_read_at_once() {
        let mut reader = Reader::after_first_byte().await;
        reader.hears(1, 48 << 10);
        let (len, waited) = reader.read().await;
        assert!(len >= 32 << 10, "{len}");
        assert_eq!(waited, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_byte_after_a_silence_is_read_at_once() {
        let mut reader = Reader::after_first_byte().await;
        timeout(BEAT * 3, reader.read()).await.expect_err("nothing came");
        reader.hears(1, 1);
        assert_eq!(reader.read().await, (1, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_is_seen_at_once() {
        let mut reader = Reader::after_first_byte().await;
        reader.peer.shutdown(std::net::Shutdown::Write).expect("an open socket");
        assert_eq!(reader.read().await, (0, Duration::ZERO));
    }
}
