//! `edgerec fleet status` and `edgerec fleet watch`: how the boxes stand, as they say it.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::cli::fleet::scene::Scene;
use crate::cli::fleet::{Fleet, failed};
use crate::cli::outcome::{Failure, bytes_for_people, print, print_json, printable, written};
use crate::fleet::operator::Heard;

/// Between two tables on a terminal.
const DRAW_EVERY: Duration = Duration::from_secs(1);
/// Moves to the top left corner and clears the terminal.
pub(super) const CLEAR: &str = "\x1b[H\x1b[2J";
const HEAD: &str = "BOX                       ONLINE  FLEET REV  BOX REV  STREAMS  STALE  \
                    QUEUE FILES       BYTES   FLASH FREE  REFUSED";

/// What each box of a fleet has said of itself, by kind.
#[derive(Default)]
pub(super) struct Boxes(pub(super) BTreeMap<String, Value>);

impl Boxes {
    /// Takes a message; gives whose it is, of what kind, and what it says.
    pub(super) fn take(
        &mut self,
        fleet: &Fleet<'_>,
        heard: &Heard,
    ) -> Option<(String, String, Value)> {
        let (id, kind) = fleet.topics.box_of(&heard.topic)?;
        // What is no JSON was not said by a box.
        let said: Value = serde_json::from_slice(&heard.payload).ok()?;
        if matches!(kind, "state" | "online") {
            self.0.entry(id.to_owned()).or_insert_with(|| json!({}))[kind] = said.clone();
        }
        Some((id.to_owned(), kind.to_owned(), said))
    }

    fn print(&self, out: &mut dyn Write) -> Result<(), Failure> {
        print(out, HEAD)?;
        self.0.iter().try_for_each(|(id, said)| print(out, row(id, said)))
    }
}

/// Shows every box once.
///
/// # Errors
/// The broker is lost.
pub(super) async fn status(
    fleet: &Fleet<'_>,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let scene = Scene::open(fleet, &[]).await?;
    let boxes = scene.boxes();
    if !json {
        return boxes.print(out);
    }
    boxes.0.iter().try_for_each(|(id, said)| {
        let (online, state) = (&said["online"], &said["state"]);
        print_json(out, &json!({"box": id, "online": online, "state": state}))
    })
}

/// Shows the boxes until nobody reads any more: a table that is kept up on a terminal, else every
/// message.
///
/// # Errors
/// The broker is lost.
pub(super) async fn watch(
    fleet: &Fleet<'_>,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut operator = fleet.connect().await?;
    operator.listen(&fleet.topics.said_by(None)).await.map_err(failed)?;
    let terminal = !json && std::io::stdout().is_terminal();
    let mut boxes = Boxes::default();
    let mut draw_at = Instant::now() + DRAW_EVERY;
    loop {
        let heard = operator.hear(draw_at).await.map_err(failed)?;
        let news = heard.and_then(|heard| boxes.take(fleet, &heard));
        if let Some((id, kind, said)) = news.filter(|_| !terminal) {
            if json {
                print_json(out, &json!({"box": id, "kind": kind, "said": said}))?;
            } else {
                let said = printable(&said.to_string());
                print(out, format_args!("{} {}: {said}", printable(&id), printable(&kind)))?;
            }
        }
        if Instant::now() >= draw_at {
            draw_at += DRAW_EVERY;
            if terminal {
                print(out, CLEAR)?;
                boxes.print(out)?;
            }
        }
        written(out.flush())?;
    }
}

fn row(id: &str, said: &Value) -> String {
    let (online, state) = (&said["online"]["online"], &said["state"]);
    let online = match online.as_bool() {
        Some(true) => "yes",
        Some(false) => "no",
        None => "?",
    };
    let applied = |layer: &str| {
        let revision = state["rules"][layer]["applied"].as_u64();
        revision.map_or_else(|| "-".to_owned(), |revision| revision.to_string())
    };
    let streams = state["streams"].as_array().map_or(&[][..], Vec::as_slice);
    let stale = streams.iter().filter(|stream| stream["stale"] == true).count();
    let bytes = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), bytes_for_people);
    let refused: Vec<String> = ["fleet", "box"]
        .into_iter()
        .filter_map(|layer| {
            let refused = &state["rules"][layer]["refused"];
            refused["why"].as_str().map(|why| format!("{layer}: {}", printable(why)))
        })
        .collect();
    format!(
        "{:25} {online:6}  {:>9}  {:>7}  {:>7}  {stale:>5}  {:>11}  {:>10}  {:>11}  {}",
        printable(id),
        applied("fleet"),
        applied("box"),
        streams.len(),
        state["queue"]["files"].as_u64().map_or_else(|| "-".to_owned(), |files| files.to_string()),
        bytes(&state["queue"]["bytes"]),
        bytes(&state["flash"]["free_bytes"]),
        refused.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_what_the_box_said_and_dashes_for_what_it_did_not() {
        let said = json!({
            "online": {"online": true},
            "state": {
                "rules": {"fleet": {"applied": 41, "refused": {"why": "malformed"}}},
                "streams": [{"stale": true}, {"stale": false}],
                "queue": {"files": 3, "bytes": 2048}, "flash": {"free_bytes": 1_048_576},
            }
        });
        let words: Vec<String> =
            row("box-01", &said).split_whitespace().map(str::to_owned).collect();
        let expected = "box-01 yes 41 - 2 1 3 2.0 KiB 1.0 MiB fleet: malformed".split_whitespace();
        assert_eq!(words, expected.collect::<Vec<_>>());
        let nothing = row("evil\u{1b}[2J", &json!({}));
        assert!(nothing.starts_with(r"evil\u{1b}[2J") && nothing.contains(" ? "), "{nothing}");
    }
}
