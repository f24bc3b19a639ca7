//! `edgerec fsck`: reports damage, one line each, and never repairs.

use std::io::Write;
use std::sync::Arc;

use serde_json::json;

use crate::cli::outcome::{Failure, print, print_json};
use crate::config::Config;
use crate::platform::flash::{Flash, SystemFlash};
use crate::ring::fsck::{Damage, check};

/// Reads the whole ring and says what is wrong with it.
///
/// # Errors
/// There is damage, or no ring.
pub fn fsck(config: &Config, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let flash: Arc<dyn Flash> = Arc::new(SystemFlash);
    let found = check(&flash, &config.ring.path, config.ring.sync_interval)
        .map_err(|error| Failure::of(&error))?;
    for damage in &found.damages {
        if json {
            let file = damage.file.map(|file| file.to_string());
            let slot = damage.slot.map(|slot| slot.0);
            let offset = damage.slot.map(|_| damage.offset);
            let what = &damage.what;
            let line = json!({"slot": slot, "offset": offset, "file_id": file, "what": what});
            print_json(out, &line)?;
        } else {
            print(out, line_of(damage))?;
        }
    }
    let (slots, fragments, damages) = (found.slots, found.fragments, found.damages.len());
    if json {
        let ok = damages == 0;
        let verdict = json!({"ok": ok, "slots": slots, "fragments": fragments, "damages": damages});
        print_json(out, &verdict)?;
    } else {
        let verdict = match damages {
            0 => "no damage".to_owned(),
            1 => "1 damage".to_owned(),
            more => format!("{more} damages"),
        };
        print(out, format_args!("{slots} slots, {fragments} good fragments, {verdict}"))?;
    }
    if damages == 0 { Ok(()) } else { Err(Failure::Said(Failure::FAILED)) }
}

fn line_of(damage: &Damage) -> String {
    let place = damage
        .slot
        .map_or_else(|| "catalog".to_owned(), |slot| format!("slot {slot} byte {}", damage.offset));
    let file = damage.file.map_or_else(String::new, |file| format!("file {file}: "));
    format!("{place}: {file}{}", damage.what)
}
