//! How many requests of an action are answered in a second. Seconds are those of the boot clock,
//! one after the other, so that around the turn of a second twice as many may come.

use std::collections::HashMap;

use crate::domain::service::Refusal;
use crate::domain::service::limits::ServiceLimits;
use crate::domain::time::BootTime;

/// Names that are counted in one second; of more there are no actions.
const NAMES_MAX: usize = 256;

/// The requests of this second.
#[derive(Debug, Default)]
pub struct Throttle {
    second: u64,
    counts: HashMap<String, u32>,
}

impl Throttle {
    /// Counts a request of an action.
    ///
    /// # Errors
    /// There were as many as allowed in this second.
    pub fn admit(
        &mut self,
        action: &str,
        limits: &ServiceLimits,
        now: BootTime,
    ) -> Result<(), Refusal> {
        let second = now.0 / 1_000;
        if self.second != second {
            self.second = second;
            self.counts.clear();
        }
        let rate = limits.rate(action);
        let full = || {
            let what = format!("{action} may be asked {rate} times a second");
            Refusal::new("RequestLimitExceeded", what)
        };
        if !self.counts.contains_key(action) && self.counts.len() >= NAMES_MAX {
            return Err(full());
        }
        let count = self.counts.entry(action.to_owned()).or_default();
        if *count >= rate {
            return Err(full());
        }
        *count += 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_action_has_its_rate_each_second() {
        let (mut throttle, limits) = (Throttle::default(), ServiceLimits::default());
        let mut admit = |action: &str, now_ms| throttle.admit(action, &limits, BootTime(now_ms));
        for number in 0..20 {
            assert_eq!(admit("CreateRecordTask", 5_000 + number), Ok(()));
        }
        let refusal = admit("CreateRecordTask", 5_999).expect_err("too many");
        assert_eq!(refusal.code, "RequestLimitExceeded");
        assert_eq!(admit("StopRecordTask", 5_999), Ok(()));
        assert_eq!(admit("CreateRecordTask", 6_000), Ok(()));
    }

    #[test]
    fn made_up_names_do_not_fill_the_memory() {
        let (mut throttle, limits) = (Throttle::default(), ServiceLimits::default());
        for number in 0..2 * NAMES_MAX {
            let admitted = throttle.admit(&format!("A{number}"), &limits, BootTime(0));
            assert_eq!(admitted.is_ok(), number < NAMES_MAX);
        }
        assert_eq!(throttle.counts.len(), NAMES_MAX);
    }
}
