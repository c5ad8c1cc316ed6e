//! Waits for a short time without sleeping.
//!
//! If the next request comes soon, a short busy-wait costs less than a sleep. But a busy-wait takes
//! processor time from other threads. So the length of a wait adapts, as in the halt polling of
//! Linux. The wait is long while waits succeed, and zero while requests are rare.

use std::time::{Duration, Instant};

/// The maximum length of a wait. This time is a few times the cost of a sleep.
const MAX: Duration = Duration::from_micros(50);

/// The time between an event and the moment at which a sleeping thread runs again.
const WAKE_UP: Duration = Duration::from_micros(10);

/// The minimum length of a wait. Shorter waits cost more than they save.
const MIN: Duration = Duration::from_micros(5);

/// Number of checks of the condition between two readings of the clock. Reading the clock takes
/// longer than checking the condition.
const LOOKS: u32 = 32;

/// The length of the next wait. It adapts to the length of earlier sleeps.
#[derive(Debug)]
pub(super) struct Spin {
    window: Duration,
}

impl Default for Spin {
    fn default() -> Self {
        Self { window: MAX }
    }
}

impl Spin {
    /// Whether the next wait is worthwhile: whether its length is not zero.
    pub fn pays(&self) -> bool {
        !self.window.is_zero()
    }

    /// Waits for a condition. Returns false if the condition did not become true in time.
    pub fn until<E>(&self, mut condition: impl FnMut() -> Result<bool, E>) -> Result<bool, E> {
        let begin = Instant::now();
        while begin.elapsed() < self.window {
            for _ in 0..LOOKS {
                if condition()? {
                    return Ok(true);
                }
                std::hint::spin_loop();
            }
        }
        Ok(false)
    }

    /// Adapts the length of the next wait after a sleep. If a wait of maximum length would have
    /// made the sleep unnecessary, the next wait has the maximum length. Otherwise the next wait is
    /// half as long as the last wait, or zero if this half is shorter than `MIN`.
    pub fn slept(&mut self, time: Duration) {
        let avoidable = self.window < MAX && self.window + time < MAX + WAKE_UP;
        self.window = match self.window / 2 {
            _ if avoidable => MAX,
            half if half >= MIN => half,
            _ => Duration::ZERO,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_end_when_they_do_not_pay_and_return_when_they_would() {
        let mut spin = Spin::default();
        for _ in 0..5 {
            spin.slept(Duration::from_secs(1));
        }
        assert!(!spin.pays());
        assert_eq!(
            spin.until(|| Err(())),
            Ok(false),
            "it checks the condition without a wait"
        );
        spin.slept(Duration::from_micros(40));
        assert_eq!(spin.window, MAX);
        // If each event comes a little later than the end of the longest wait, the worker has to
        // stop busy-waiting.
        for _ in 0..5 {
            spin.slept(Duration::from_micros(65) - spin.window);
        }
        assert!(!spin.pays());
    }

    #[test]
    fn a_wait_ends_with_its_condition_an_error_or_its_time() {
        let spin = Spin::default();
        let mut looks = 0;
        let third = || {
            looks += 1;
            Ok::<_, ()>(looks == 3)
        };
        assert_eq!(spin.until(third), Ok(true));
        assert_eq!(spin.until(|| Ok::<_, ()>(false)), Ok(false));
        assert_eq!(spin.until(|| Err(7)), Err(7));
    }
}
