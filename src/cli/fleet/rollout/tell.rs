//! Tells how a rollout gets on: a table that is kept up on a terminal, lines, or JSON.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};

use serde_json::{Value, json};

use crate::cli::fleet::boxes::CLEAR;
use crate::cli::outcome::{Failure, print, print_json, printable, written};
use crate::domain::fleet::rollout::Standing;

/// Boxes that a table has room for.
const ROWS_MAX: usize = 40;

/// How it is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Table,
    Lines,
    Json,
}

/// Tells of one rollout.
pub(super) struct Teller<'a> {
    out: &'a mut dyn Write,
    form: Form,
    step: String,
    /// The boxes of the step, each with its word and why.
    boxes: BTreeMap<String, (&'static str, String)>,
}

impl<'a> Teller<'a> {
    /// Tells in the form that is asked for, or else fits.
    pub(super) fn new(json: bool, out: &'a mut dyn Write) -> Self {
        let form = match json {
            true => Form::Json,
            false if std::io::stdout().is_terminal() => Form::Table,
            false => Form::Lines,
        };
        Teller { out, form, step: String::new(), boxes: BTreeMap::new() }
    }

    /// Something happened, in words and for programs.
    pub(super) fn event(&mut self, words: &str, event: &Value) -> Result<(), Failure> {
        match self.form {
            Form::Json => print_json(self.out, event)?,
            Form::Table | Form::Lines => print(self.out, printable(words))?,
        }
        written(self.out.flush())
    }

    /// Boxes get the rules, or lose them.
    pub(super) fn step(&mut self, step: &str, boxes: &[String]) -> Result<(), Failure> {
        let word = |id: &String| (id.clone(), ("waits", String::new()));
        (self.step, self.boxes) = (step.to_owned(), boxes.iter().map(word).collect());
        let event = json!({"event": "step", "step": step, "boxes": boxes});
        self.event(&format!("{step}: {} boxes", boxes.len()), &event)
    }

    /// A box of the step stands like this.
    pub(super) fn stands(&mut self, id: &str, standing: &Standing) -> Result<(), Failure> {
        let (word, why) = match standing {
            Standing::Well => ("well", ""),
            Standing::Away => ("away", ""),
            Standing::Waits(why) => ("waits", why.as_str()),
            Standing::Broken(why) => ("broken", why.as_str()),
        };
        let told = (word, why.to_owned());
        if self.boxes.get(id) == Some(&told) {
            return Ok(());
        }
        self.boxes.insert(id.to_owned(), told);
        if self.form == Form::Table {
            return Ok(());
        }
        let event = json!({"event": "box", "box": id, "standing": word, "why": why});
        let dash = if why.is_empty() { "" } else { ": " };
        self.event(&format!("  {id} {word}{dash}{why}"), &event)
    }

    /// Draws the table anew where there is one.
    pub(super) fn draw(&mut self) -> Result<(), Failure> {
        if self.form != Form::Table {
            return Ok(());
        }
        let well = self.boxes.values().filter(|(word, _)| *word == "well").count();
        let head = format!("{CLEAR}{}: {well} of {} boxes are well\n", self.step, self.boxes.len());
        print(self.out, head)?;
        print(self.out, "BOX                       STANDING  WHY")?;
        // Those that are not well are what one looks for.
        let mut rows: Vec<_> = self.boxes.iter().collect();
        rows.sort_by_key(|(_, (word, _))| {
            ["broken", "waits", "away", "well"].iter().position(|w| w == word)
        });
        for (id, (word, why)) in rows.iter().take(ROWS_MAX) {
            print(self.out, format_args!("{:25} {word:8}  {}", printable(id), printable(why)))?;
        }
        if rows.len() > ROWS_MAX {
            print(self.out, format_args!("and {} more", rows.len() - ROWS_MAX))?;
        }
        written(self.out.flush())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(form: Form) -> String {
        let mut out = Vec::new();
        let (step, boxes) = (String::new(), BTreeMap::new());
        let mut teller = Teller { out: &mut out, form, step, boxes };
        let ids = ["box-01".to_owned(), "box-02".to_owned()];
        teller.step("step 1 of 2", &ids).expect("written");
        for _ in 0..2 {
            let ill = Standing::Broken("refused\u{1b}[2J".to_owned());
            teller.stands("box-01", &Standing::Well).expect("written");
            teller.stands("box-02", &ill).expect("written");
        }
        teller.draw().expect("written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn what_changes_is_told_once_and_a_table_begins_with_what_is_ill() {
        let lines = told(Form::Lines);
        let expected = "step 1 of 2: 2 boxes\n  box-01 well\n  box-02 broken: refused\\u{1b}[2J\n";
        assert_eq!(lines, expected);
        let json: Vec<Value> = told(Form::Json)
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(json.len(), 3);
        assert_eq!(
            json[1],
            json!({"event": "box", "box": "box-01", "standing": "well", "why": ""})
        );
        let table = told(Form::Table);
        let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("box-")).collect();
        assert!(rows[0].starts_with("box-02") && rows[1].starts_with("box-01"), "{table}");
        assert!(table.contains("1 of 2 boxes are well"), "{table}");
        assert!(!table.replace(CLEAR, "").contains('\u{1b}'), "foreign text steers no terminal");
    }
}
