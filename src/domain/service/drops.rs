//! Pushers that were dropped so that they come back under new rules: which of them did not come back
//! by themselves. Those are not dropped again, also not by a later rule set: somebody would have to
//! walk to the encoder each time.

use std::collections::BTreeMap;

use crate::domain::service::{Changes, Kind};
use crate::domain::splice::Pause;
use crate::domain::stream_key::StreamKey;
use crate::domain::time::Moment;

/// An encoder that comes back by itself does so within this time, in seconds.
pub const COMES_BACK_WITHIN_S: u32 = 60;
/// Streams that are remembered; of more the one that was dropped first is forgotten.
const DROPS_MAX: usize = 1_024;

/// Streams whose pusher was dropped and has not come back in time, or not yet.
#[derive(Debug, Clone, Default)]
pub struct Drops(BTreeMap<StreamKey, Pause>);

impl Drops {
    /// Whether the pusher of a live stream was dropped and did not come back by itself.
    #[must_use]
    pub fn stayed_away(&self, key: &StreamKey) -> bool {
        self.0.contains_key(key)
    }

    /// A pusher is dropped.
    pub fn dropped(&mut self, key: &StreamKey, now: Moment, changes: &mut Changes) {
        let pause = Pause::new(now, COMES_BACK_WITHIN_S);
        changes.put(Kind::Drop, key.to_string(), &pause);
        self.0.insert(key.clone(), pause);
        while self.0.len() > DROPS_MAX {
            let first = self.0.iter().min_by_key(|(_, pause)| pause.since().at.wall.unix);
            let Some(first) = first.map(|(key, _)| key.clone()) else { return };
            self.0.remove(&first);
            changes.delete(Kind::Drop, first.to_string());
        }
    }

    /// The stream is live again: one that is back in time may be dropped another time.
    pub fn returned(&mut self, key: &StreamKey, now: Moment, changes: &mut Changes) {
        if self.0.get(key).is_some_and(|pause| !pause.is_over(now)) {
            self.0.remove(key);
            changes.delete(Kind::Drop, key.to_string());
        }
    }

    pub(super) fn restore(&mut self, key: &str, content: &str) -> Result<(), String> {
        let key: StreamKey = key.parse().map_err(|_| "is no stream key")?;
        let pause = serde_json::from_str(content).map_err(|error| error.to_string())?;
        self.0.insert(key, pause);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::task::tests::moment;

    fn key(number: usize) -> StreamKey {
        StreamKey::new("d", "live", &format!("s{number}")).expect("a key")
    }

    /// What is read back of what was stored.
    fn again(changes: &Changes) -> Drops {
        let mut entries = BTreeMap::new();
        for change in changes.iter() {
            match &change.content {
                Some(content) => entries.insert(change.key.clone(), content.clone()),
                None => entries.remove(&change.key),
            };
        }
        let mut drops = Drops::default();
        for (key, content) in entries {
            drops.restore(&key, &content).expect("its own form");
        }
        drops
    }

    #[test]
    fn one_that_is_back_in_time_is_forgotten_and_one_that_is_late_never() {
        let (mut drops, mut changes) = (Drops::default(), Changes::new());
        let at = |s: u64| moment(1, s * 1_000, 1_000, true);
        drops.dropped(&key(1), at(100), &mut changes);
        drops.dropped(&key(2), at(100), &mut changes);
        drops.returned(&key(1), at(160), &mut changes);
        drops.returned(&key(2), at(161), &mut changes);
        let mut drops = again(&changes);
        assert!(!drops.stayed_away(&key(1)));
        assert!(drops.stayed_away(&key(2)) && !drops.stayed_away(&key(3)));
        drops.returned(&key(2), at(9_000), &mut changes);
        assert!(again(&changes).stayed_away(&key(2)), "it came and went in between");
    }

    #[test]
    fn of_too_many_the_first_is_forgotten() {
        let (mut drops, mut changes) = (Drops::default(), Changes::new());
        for number in 0..=DROPS_MAX {
            let unix_s = i64::try_from(number).expect("small");
            drops.dropped(&key(number), moment(1, 7, unix_s, true), &mut changes);
        }
        let drops = again(&changes);
        assert_eq!(drops.0.len(), DROPS_MAX);
        assert!(!drops.stayed_away(&key(0)) && drops.stayed_away(&key(DROPS_MAX)));
    }
}
