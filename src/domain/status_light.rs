//! What the status LED shows: on while it records, a short blink while it waits for streams, a quick
//! blink while something is wrong.

/// Steps of the light a second.
pub const STEPS_PER_SECOND: u64 = 4;
/// A box that waits blinks once in so many steps.
const WAITING_PERIOD: u64 = 8;

/// How the box is, as its light tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wellness {
    /// A stream is recorded.
    Recording,
    /// All is well, and nothing is recorded.
    Waiting,
    /// Media was lost or cannot be made durable.
    Trouble,
}

/// Whether the light is on at a step.
#[must_use]
pub fn is_lit(wellness: Wellness, step: u64) -> bool {
    match wellness {
        Wellness::Recording => true,
        Wellness::Waiting => step.is_multiple_of(WAITING_PERIOD),
        Wellness::Trouble => step.is_multiple_of(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_rhythm() {
        let shown = |wellness| -> String {
            (0..16).map(|step| if is_lit(wellness, step) { '#' } else { '.' }).collect()
        };
        assert_eq!(shown(Wellness::Recording), "################");
        assert_eq!(shown(Wellness::Waiting), "#.......#.......");
        assert_eq!(shown(Wellness::Trouble), "#.#.#.#.#.#.#.#.");
    }
}
