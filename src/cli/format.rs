//! `edgerec format`: makes the ring that the configuration describes.

use std::io::Write;

use serde_json::json;

use crate::cli::outcome::{Failure, bytes_for_people, print, print_json};
use crate::config::Config;
use crate::platform::flash::SystemFlash;
use crate::ring::identity::RingIdentity;

/// The rate by which the ring's length is told, bytes a second: one stream of 4 Mbit/s.
const TOLD_BYTES_PER_SECOND: u64 = 500_000;

/// Makes the ring and says what was made.
///
/// # Errors
/// There is a ring already, there is no room, or the flash fails.
pub fn format(config: &Config, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let ring = &config.ring;
    let made = RingIdentity::plan(&ring.path, ring.capacity_bytes, ring.slot_bytes)
        .and_then(|plan| plan.create(&SystemFlash, &ring.path).map(|()| plan));
    let made = made.map_err(|error| Failure::of(&error))?;
    let path = ring.path.display();
    let slots_bytes = u64::from(made.slots) * made.slot_bytes;
    let minutes = slots_bytes / TOLD_BYTES_PER_SECOND / 60;
    let id = config.identity.id.as_ref().unwrap_or(&made.box_id);
    if json {
        return print_json(
            out,
            &json!({
                "path": ring.path.to_string_lossy(), "box": id, "slots": made.slots,
                "slot_bytes": made.slot_bytes, "capacity_bytes": made.capacity_bytes,
                "minutes_at_4_mbit": minutes,
            }),
        );
    }
    let (all, slot) = (bytes_for_people(made.capacity_bytes), bytes_for_people(made.slot_bytes));
    let slots = made.slots;
    print(out, format_args!("made a ring of {all} in {path} for {id}: {slots} slots of {slot}"))?;
    let (hours, rest) = (minutes / 60, minutes % 60);
    print(out, format_args!("it holds about {hours} h {rest} min of one stream of 4 Mbit/s"))
}
