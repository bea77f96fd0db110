//! How much a counter grew.

/// How much a counter grew from one sample to the next.
///
/// A counter that falls was reset and counts from 0 again, as in Prometheus; what it counted between
/// the last sample and the reset is not known. One that falls by at most a tenth was not reset: some
/// kernels let counters of CPU time go back a little. It did not grow then.
pub fn increase(before: f64, now: f64) -> f64 {
    if now >= before {
        now - before
    } else if now >= before * 0.9 {
        0.0
    } else {
        now.max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::increase;

    #[test]
    fn a_reset_counts_from_zero_and_a_small_step_back_is_none() {
        assert_eq!(increase(10.0, 15.0), 5.0);
        assert_eq!(increase(1000.0, 40.0), 40.0);
        assert_eq!(increase(1000.0, 0.0), 0.0);
        assert_eq!(increase(1000.0, 999.99), 0.0);
        assert_eq!(increase(0.0, 0.0), 0.0);
    }
}
