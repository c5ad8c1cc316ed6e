//! Waiting for a short while without sleeping.
//!
//! To sleep and be woken costs more than the next request's way here, when it comes at once; but
//! time spent waiting is taken from others. So, like a kernel does for halted processors, the wait
//! is as long as it would have paid, and none when requests come seldom.

use std::time::{Duration, Instant};

/// The longest wait: a few times what a sleep costs.
const MAX: Duration = Duration::from_micros(50);

/// How much later than its reason a sleep ends.
const WAKE_UP: Duration = Duration::from_micros(10);

/// Below this it is not worth it.
const MIN: Duration = Duration::from_micros(5);

/// Looks at the clock take longer than looks at memory.
const LOOKS: u32 = 32;

/// How long to wait, by experience.
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
    /// Whether there is any wait at all.
    pub fn pays(&self) -> bool {
        !self.window.is_zero()
    }

    /// Waits for a condition; false when it did not come true in time.
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

    /// Learns from a sleep that followed a wait in vain, if there was one: whether the longest wait
    /// would have done.
    pub fn slept(&mut self, time: Duration) {
        let would_do = self.window < MAX && self.window + time < MAX + WAKE_UP;
        self.window = match self.window / 2 {
            _ if would_do => MAX,
            half if half >= MIN => half,
            _ => Duration::ZERO,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_whether_it_pays() {
        let mut spin = Spin::default();
        for _ in 0..5 {
            spin.slept(Duration::from_secs(1));
        }
        assert!(!spin.pays());
        assert_eq!(spin.until(|| Err(())), Ok(false), "it does not even look");
        spin.slept(Duration::from_micros(40));
        assert_eq!(spin.window, MAX);
        // What takes a little longer than the longest wait must not have it in vain for ever.
        for _ in 0..5 {
            spin.slept(Duration::from_micros(65) - spin.window);
        }
        assert!(!spin.pays());
    }

    #[test]
    fn ends_with_the_condition_or_the_time() {
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
