//! How many requests of an action are answered in a second. Seconds are those of the boot clock,
//! one after the other, so that around the turn of a second twice as many may come. Only actions
//! that there are can be counted, so made-up names take nothing away from anybody.

use std::collections::HashMap;

use crate::domain::service::Refusal;
use crate::domain::service::limits::ServiceLimits;
use crate::domain::time::BootTime;

/// The requests of this second.
#[derive(Debug, Default)]
pub struct Throttle {
    second: u64,
    counts: HashMap<&'static str, u32>,
}

impl Throttle {
    /// Counts a request of an action.
    ///
    /// # Errors
    /// There were as many as allowed in this second.
    pub fn admit(
        &mut self,
        action: &'static str,
        limits: &ServiceLimits,
        now: BootTime,
    ) -> Result<(), Refusal> {
        let second = now.0 / 1_000;
        if self.second != second {
            self.second = second;
            self.counts.clear();
        }
        let rate = limits.rate(action);
        let count = self.counts.entry(action).or_default();
        if *count >= rate {
            let what = format!("{action} may be asked {rate} times a second");
            return Err(Refusal::new("RequestLimitExceeded", what));
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
        let mut admit = |action, now_ms| throttle.admit(action, &limits, BootTime(now_ms));
        for number in 0..20 {
            assert_eq!(admit("CreateRecordTask", 5_000 + number), Ok(()));
        }
        let refusal = admit("CreateRecordTask", 5_999).expect_err("too many");
        assert_eq!(refusal.code, "RequestLimitExceeded");
        assert_eq!(admit("StopRecordTask", 5_999), Ok(()));
        assert_eq!(admit("CreateRecordTask", 6_000), Ok(()));
    }
}
