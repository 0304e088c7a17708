//! What follows a death: pure, time is an argument.
//!
//! ```text
//!            death                    third death within 10 s, or third in a row before ready
//!  steady ─────────▶ start at once  ──────────────────────────────▶ looping: port closed, 2, 4, 8 … 30 s
//!    ▲                                                                │ try again; each death closes again
//!    └────────────────────── ready for 10 s ──────────────────────────┘
//! ```

use std::time::{Duration, Instant};

#[derive(Debug, PartialEq, Eq)]
pub enum After {
    StartAtOnce,
    /// Balancers shall turn away: close the listeners, try again later.
    CloseFor(Duration),
}

#[derive(Default)]
pub struct Restarts {
    /// The last deaths, oldest first, at most `LOOP_DEATHS`.
    deaths: Vec<Instant>,
    unready: usize,
    /// Zero = not in a crash loop.
    wait: Duration,
}

impl Restarts {
    /// `ready_since`: when the process that has just died had become ready, if it had.
    pub fn handle_death(&mut self, now: Instant, ready_since: Option<Instant>) -> After {
        let was_steady = ready_since.is_some_and(|since| now.duration_since(since) >= STEADY);
        if was_steady {
            self.wait = Duration::ZERO;
        }
        self.unready = if ready_since.is_some() {
            0
        } else {
            self.unready + 1
        };
        self.deaths.push(now);
        self.deaths
            .retain(|death| now.duration_since(*death) < LOOP_WINDOW);
        let is_loop = self.deaths.len() >= LOOP_DEATHS || self.unready >= LOOP_DEATHS || !self.wait.is_zero();
        if !is_loop {
            return After::StartAtOnce;
        }
        self.deaths.clear();
        self.unready = 0;
        self.wait = (self.wait * 2).clamp(FIRST_WAIT, LONGEST_WAIT);
        After::CloseFor(self.wait)
    }
}

const LOOP_DEATHS: usize = 3;
const LOOP_WINDOW: Duration = Duration::from_secs(10);
const STEADY: Duration = Duration::from_secs(10);
const FIRST_WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(of: &Instant, value: f64) -> Instant {
        *of + Duration::from_secs_f64(value)
    }

    #[test]
    fn starts_at_once_unless_three_die_within_ten_seconds() {
        let t = Instant::now();
        let mut restarts = Restarts::default();
        assert_eq!(restarts.handle_death(t, Some(t)), After::StartAtOnce);
        assert_eq!(
            restarts.handle_death(seconds(&t, 9.0), Some(t)),
            After::StartAtOnce
        );
        assert_eq!(
            restarts.handle_death(seconds(&t, 10.1), Some(t)),
            After::StartAtOnce,
            "the first is out of the window"
        );
        assert_eq!(
            restarts.handle_death(seconds(&t, 12.0), Some(seconds(&t, 11.0))),
            After::CloseFor(FIRST_WAIT)
        );
    }

    #[test]
    fn closes_also_when_three_in_a_row_never_got_ready_however_slowly_they_die() {
        let t = Instant::now();
        let mut restarts = Restarts::default();
        assert_eq!(restarts.handle_death(t, None), After::StartAtOnce);
        assert_eq!(restarts.handle_death(seconds(&t, 20.0), None), After::StartAtOnce);
        assert_eq!(
            restarts.handle_death(seconds(&t, 40.0), None),
            After::CloseFor(FIRST_WAIT)
        );
    }

    #[test]
    fn waits_longer_each_time_and_forgets_after_ten_good_seconds() {
        let t = Instant::now();
        let mut restarts = Restarts::default();
        restarts.handle_death(t, None);
        restarts.handle_death(t, None);
        let waits: Vec<u64> = (0..6)
            .map(
                |n| match restarts.handle_death(seconds(&t, f64::from(n) * 100.0), None) {
                    After::CloseFor(wait) => wait.as_secs(),
                    After::StartAtOnce => 0,
                },
            )
            .collect();
        assert_eq!(waits, [2, 4, 8, 16, 30, 30]);
        let ready = seconds(&t, 1000.0);
        assert_eq!(
            restarts.handle_death(seconds(&t, 1009.0), Some(ready)),
            After::CloseFor(LONGEST_WAIT)
        );
        assert_eq!(
            restarts.handle_death(seconds(&t, 1010.0), Some(ready)),
            After::StartAtOnce
        );
    }
}
