//! `edgerec events`: what happened, from a number on, told or not, as long as there is room to keep it.

use std::io::Write;

use jiff::Timestamp;

use crate::api::report::EventRow;
use crate::cli::link::Link;
use crate::cli::outcome::{Failure, print, print_json, printable};
use crate::cli::rounds::rounds;
use crate::config::Config;
use crate::domain::notice::NoticeSeq;

/// Lists events from a number on; with `follow` until nobody reads any more.
///
/// # Errors
/// They cannot be listed.
pub fn events(
    config: &Config,
    from: u64,
    follow: bool,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut next = from;
    rounds(follow, out, |out| {
        Link::open(config)?.events(NoticeSeq(next), &mut |row| {
            next = row.seq + 1;
            if json { print_json(out, &row) } else { print(out, line(&row)) }
        })
    })
}

fn line(row: &EventRow) -> String {
    let time = Timestamp::from_millisecond(row.time_ms).unwrap_or_default();
    let time = time.strftime("%Y-%m-%dT%H:%M:%SZ");
    let stream = printable(row.stream.as_deref().unwrap_or("-"));
    let readers = [("receiver", &row.receiver), ("fleet", &row.fleet)];
    let readers: Vec<String> = readers
        .into_iter()
        .filter_map(|(who, word)| Some(format!("{who} {}", word.as_ref()?.replace('_', " "))))
        .collect();
    format!("{:>8}  {time}  {:<16} {stream}  {}", row.seq, row.kind, readers.join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_tells_when_what_where_and_who_has_it() {
        let row = EventRow {
            seq: 7,
            kind: "push_begin".into(),
            time_ms: 1_700_000_000_999,
            stream: Some("d/live/cam".into()),
            receiver: Some("given_up".into()),
            fleet: Some("waits".into()),
            event: json!({}),
        };
        let told = "       7  2023-11-14T22:13:20Z  push_begin       d/live/cam  \
                    receiver given up, fleet waits";
        assert_eq!(line(&row), told);
        let row = EventRow { stream: None, receiver: None, ..row };
        assert!(line(&row).ends_with(" -  fleet waits"), "{}", line(&row));
    }
}
