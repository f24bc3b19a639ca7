//! What the demo says on stderr: one line that is written over each second on a terminal, else a
//! line now and then.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

/// Time between two lines where they stay.
const SPARSE: Duration = Duration::from_secs(10);

/// The line of progress. Nothing said here matters to the work, so what cannot be written is lost.
pub(super) struct Progress<W> {
    out: W,
    live: bool,
    open: bool,
    next: Duration,
}

impl Progress<io::Stderr> {
    /// On stderr.
    pub(super) fn stderr() -> Self {
        Progress::new(io::stderr(), io::stderr().is_terminal())
    }
}

impl<W: Write> Progress<W> {
    fn new(out: W, live: bool) -> Self {
        Progress { out, live, open: false, next: Duration::ZERO }
    }

    /// Says a line that stays.
    pub(super) fn say(&mut self, line: &str) {
        self.clear();
        let _ = writeln!(self.out, "{line}");
    }

    /// Says how far it is `elapsed` after the beginning; call it every second.
    pub(super) fn tick(&mut self, elapsed: Duration, line: &str) {
        if self.live {
            // Back to the margin, and erase what the last line had more.
            let _ = write!(self.out, "\r{line}\x1b[K");
            let _ = self.out.flush();
            self.open = true;
        } else if elapsed >= self.next {
            let _ = writeln!(self.out, "{line}");
            self.next = elapsed + SPARSE;
        }
    }

    /// Clears the line, so that something else can be written to the terminal.
    pub(super) fn clear(&mut self) {
        if self.open {
            let _ = write!(self.out, "\r\x1b[K");
            let _ = self.out.flush();
            self.open = false;
        }
    }
}

/// Bytes for people.
pub(super) fn size(bytes: u64) -> String {
    if bytes < 1 << 20 {
        return format!("{} KiB", bytes >> 10);
    }
    let tenths = (bytes >> 10).saturating_mul(10) >> 10;
    format!("{}.{} MiB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(live: bool) -> String {
        let mut out = Vec::new();
        let mut progress = Progress::new(&mut out, live);
        progress.say("begin");
        for second in 0..25 {
            progress.tick(Duration::from_secs(second), &format!("{second} s"));
        }
        progress.say("end");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_terminal_has_one_line_and_a_log_has_few() {
        assert_eq!(told(false), "begin\n0 s\n10 s\n20 s\nend\n");
        let live = told(true);
        assert_eq!(live.lines().count(), 2);
        assert!(live.starts_with("begin\n\r0 s\x1b[K\r1 s\x1b[K"));
        assert!(live.ends_with("\r24 s\x1b[K\r\x1b[Kend\n"));
    }

    #[test]
    fn sizes_are_short() {
        let sizes = [0, 27_000, 1_600_000, u64::MAX].map(size);
        assert_eq!(sizes, ["0 KiB", "26 KiB", "1.5 MiB", "17592186044415.9 MiB"]);
    }
}
