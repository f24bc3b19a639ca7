//! `edgerec ls`: the files, once or again and again.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};

use jiff::Timestamp;

use crate::api::report::FileRow;
use crate::cli::link::Link;
use crate::cli::outcome::{Failure, bytes_for_people, print, print_json, printable};
use crate::cli::rounds::rounds;
use crate::config::Config;
use crate::domain::stream_key::StreamKey;

/// Rows that fit a terminal.
const TERMINAL_ROWS: usize = 40;
/// Files that can be on their way at the same time.
const UPLOADING_ROWS: usize = 9;
/// Moves to the top left corner and clears the terminal.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// Lists the files, the oldest first; with `watch` until nobody reads any more.
///
/// # Errors
/// They cannot be listed.
pub fn ls(config: &Config, watch: bool, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let terminal = watch && !json && std::io::stdout().is_terminal();
    rounds(watch, out, |out| {
        let link = Link::open(config)?;
        if json {
            link.files(&mut |row| print_json(out, &row))
        } else if terminal {
            let mut screen = Screen::default();
            link.files(&mut |row| {
                screen.add(&row);
                Ok(())
            })?;
            print(out, format_args!("{CLEAR}{HEAD}"))?;
            screen.rows().try_for_each(|row| print(out, row))
        } else {
            print(out, HEAD)?;
            link.files(&mut |row| print(out, table_row(&row)))
        }
    })
}

/// What of a long list is shown on a terminal: the files on their way, which in a backlog are old
/// ones, then the newest.
#[derive(Default)]
struct Screen {
    uploading: Vec<String>,
    newest: VecDeque<String>,
}

impl Screen {
    fn add(&mut self, row: &FileRow) {
        if row.state == "uploading" && self.uploading.len() < UPLOADING_ROWS {
            self.uploading.push(table_row(row));
        } else {
            self.newest.push_back(table_row(row));
        }
        if self.uploading.len() + self.newest.len() > TERMINAL_ROWS {
            self.newest.pop_front();
        }
    }

    fn rows(&self) -> impl Iterator<Item = &String> {
        self.uploading.iter().chain(&self.newest)
    }
}

const HEAD: &str = "FILE                STATE      FMT  START                  LENGTH        SIZE  \
                    STREAM  WHY";

fn table_row(row: &FileRow) -> String {
    let start = Timestamp::from_millisecond(row.start_ms)
        .map_or_else(|_| row.start_ms.to_string(), |time| time.strftime("%FT%TZ").to_string());
    let length = duration_for_people(row.duration_ms.max(0).unsigned_abs() / 1_000);
    let stream = StreamKey::new(&row.domain, &row.app, &row.stream)
        .map_or_else(|_| "?".to_owned(), |key| key.to_string());
    let mut why = printable(row.url.as_deref().unwrap_or(&row.why));
    if row.state == "uploading" {
        let rate = row.bytes_per_s.map(|rate| format!(", {}/s", bytes_for_people(rate)));
        let left = row.left_s.map(|left| format!(", {} left", duration_for_people(left)));
        let (rate, left) = (rate.unwrap_or_default(), left.unwrap_or_default());
        why = format!("{} sent{rate}{left}", bytes_for_people(row.progress_bytes));
    }
    format!(
        "{:<19} {:<10} {:<4} {start:<20} {length:>8} {:>11}  {stream}  {why}",
        row.file_id,
        row.state,
        row.format,
        bytes_for_people(row.size),
    )
}

/// `1:02:03` of so many seconds.
fn duration_for_people(seconds: u64) -> String {
    format!("{}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(state: &str, progress_bytes: u64) -> FileRow {
        FileRow {
            file_id: "42".to_owned(),
            domain: "cams".to_owned(),
            app: "live".to_owned(),
            stream: "gate 1".to_owned(),
            format: "mp4".to_owned(),
            recording: "7".to_owned(),
            task_id: None,
            start_ms: 1_800_000_000_000,
            end_ms: 1_800_000_061_000,
            duration_ms: 61_000,
            size: 3 << 20,
            sha256: None,
            state: state.to_owned(),
            why: "waits\nfor\u{1b}it".to_owned(),
            progress_bytes,
            bytes_per_s: None,
            left_s: None,
            url: None,
            tracks: Vec::new(),
            dropped_tracks: Vec::new(),
        }
    }

    #[test]
    fn a_row_stays_on_its_line() {
        let shown = table_row(&row("queued", 0));
        assert!(shown.contains("cams/live/gate%201  waits\\nfor\\u{1b}it"), "{shown}");
        assert!(shown.contains("2027-01-15T08:00:00Z  0:01:01     3.0 MiB"), "{shown}");
    }

    #[test]
    fn a_terminal_shows_what_is_on_its_way_before_the_newest() {
        let mut screen = Screen::default();
        for number in 0..100 {
            let state = if [3, 7, 98].contains(&number) { "uploading" } else { "queued" };
            screen.add(&FileRow { file_id: number.to_string(), ..row(state, 0) });
        }
        let shown: Vec<u64> = screen
            .rows()
            .map(|row| row.split(' ').next().and_then(|id| id.parse().ok()).expect("a number"))
            .collect();
        let expected: Vec<u64> = [3, 7, 98].into_iter().chain(62..98).chain([99]).collect();
        assert_eq!((shown.len(), shown), (TERMINAL_ROWS, expected));
    }

    #[test]
    fn more_than_can_be_on_their_way_do_not_push_the_newest_out() {
        let mut screen = Screen::default();
        for number in 0..100 {
            let state = if number < 50 { "uploading" } else { "queued" };
            screen.add(&FileRow { file_id: number.to_string(), ..row(state, 0) });
        }
        let uploading = screen.rows().filter(|row| row.contains(" sent")).count();
        assert_eq!((uploading, screen.rows().count()), (UPLOADING_ROWS, TERMINAL_ROWS));
    }

    #[test]
    fn a_file_on_its_way_shows_how_it_goes() {
        let row = row("uploading", 5_000);
        assert!(table_row(&row).ends_with("  4.8 KiB sent"), "{}", table_row(&row));
        let row = FileRow { bytes_per_s: Some(2_000), left_s: Some(3_725), ..row };
        let shown = table_row(&row);
        assert!(shown.ends_with("  4.8 KiB sent, 1.9 KiB/s, 1:02:05 left"), "{shown}");
    }
}
