//! Source time made continuous: 32-bit wrap is unrolled per track.

/// Unrolls a 32-bit timestamp of one track into a growing 64-bit one that never is negative.
#[derive(Debug, Clone, Default)]
pub struct Unroll32 {
    last: Option<i64>,
}

impl Unroll32 {
    /// The 64-bit time of `raw`: the one nearest to the time before. The first is taken as it is.
    pub fn unroll(&mut self, raw: u32) -> i64 {
        let time = match self.last {
            None => i64::from(raw),
            Some(last) => {
                let low = last as u32;
                let near = last + i64::from(raw.wrapping_sub(low) as i32);
                // Below zero there is nothing to store; one wrap up is the same 32-bit time.
                if near < 0 { near + (1 << 32) } else { near }
            }
        };
        self.last = Some(time);
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrap_goes_on_and_a_step_back_stays_a_step_back() {
        let mut unroll = Unroll32::default();
        assert_eq!(unroll.unroll(u32::MAX - 10), i64::from(u32::MAX) - 10);
        assert_eq!(unroll.unroll(5), (1 << 32) + 5);
        assert_eq!(unroll.unroll(u32::MAX), i64::from(u32::MAX));
    }

    #[test]
    fn time_below_zero_is_taken_one_wrap_up() {
        let mut unroll = Unroll32::default();
        assert_eq!(unroll.unroll(5), 5);
        assert_eq!(unroll.unroll(u32::MAX), i64::from(u32::MAX));
    }
}
