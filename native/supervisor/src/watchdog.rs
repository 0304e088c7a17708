//! Whether the process lives, by what it writes to its pipe: pure, time is an argument.
//!
//! ```text
//!  unheard ──any byte──▶ starting (may be silent for 30 s) ──R──▶ armed (for --watchdog-ms) ──S──▶ stopping (25 s in all)
//! ```

use std::time::{Duration, Instant};

pub struct Watchdog {
    limit: Duration,
    state: State,
    ready_since: Option<Instant>,
}

enum State {
    /// A program that does not know the pipe is never killed.
    Unheard,
    Starting(Instant),
    Armed(Instant),
    Stopping(Instant),
    Killed {
        stopping: bool,
    },
}

impl Watchdog {
    pub fn new(limit: Duration) -> Self {
        Watchdog {
            limit,
            state: State::Unheard,
            ready_since: None,
        }
    }

    pub fn handle_bytes(&mut self, bytes: &[u8], now: Instant) {
        for byte in bytes {
            self.state = match (&self.state, byte) {
                (State::Killed { .. }, _) => return,
                (State::Stopping(since), _) => State::Stopping(*since),
                (_, b'S') => State::Stopping(now),
                (State::Armed(_), _) => State::Armed(now),
                (_, b'R') => {
                    self.ready_since = Some(now);
                    State::Armed(now)
                }
                _ => State::Starting(now),
            };
        }
    }

    /// We told the process to stop; it may be slow, but not forever.
    pub fn handle_stop(&mut self, now: Instant) {
        if !matches!(self.state, State::Stopping(_) | State::Killed { .. }) {
            self.state = State::Stopping(now);
        }
    }

    /// Nothing more is expected but its death.
    pub fn handle_kill(&mut self) {
        self.state = State::Killed {
            stopping: self.is_stopping(),
        };
    }

    /// We were not running ourselves, so silence says nothing.
    pub fn forgive(&mut self, now: Instant) {
        match &mut self.state {
            State::Starting(last) | State::Armed(last) => *last = now,
            State::Unheard | State::Stopping(_) | State::Killed { .. } => {}
        }
    }

    /// When it has to be killed, if nothing is heard until then.
    pub fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Unheard | State::Killed { .. } => None,
            State::Starting(last) => Some(last + START_SILENCE),
            State::Armed(last) => Some(last + self.limit),
            State::Stopping(since) => Some(since + STOP_LIMIT),
        }
    }

    pub fn is_stopping(&self) -> bool {
        matches!(self.state, State::Stopping(_) | State::Killed { stopping: true })
    }

    pub fn ready_since(&self) -> Option<Instant> {
        self.ready_since
    }
}

const START_SILENCE: Duration = Duration::from_secs(30);
/// The process has a limit of its own, which is shorter.
const STOP_LIMIT: Duration = Duration::from_secs(25);

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(2000);

    fn left(watchdog: &Watchdog, now: Instant) -> Option<Duration> {
        watchdog.deadline().map(|deadline| deadline.duration_since(now))
    }

    #[test]
    fn is_strict_only_once_the_process_is_ready() {
        let t = Instant::now();
        let mut watchdog = Watchdog::new(LIMIT);
        assert_eq!(
            left(&watchdog, t),
            None,
            "a program that never writes is not killed"
        );
        watchdog.handle_bytes(b".", t);
        assert_eq!(left(&watchdog, t), Some(START_SILENCE));
        assert_eq!(watchdog.ready_since(), None);
        watchdog.handle_bytes(b"R", t);
        assert_eq!(left(&watchdog, t), Some(LIMIT));
        let later = t + Duration::from_millis(1500);
        watchdog.handle_bytes(b".", later);
        assert_eq!(left(&watchdog, later), Some(LIMIT));
        assert_eq!(watchdog.ready_since(), Some(t));
    }

    #[test]
    fn a_stop_has_one_limit_that_no_byte_moves() {
        let t = Instant::now();
        let mut watchdog = Watchdog::new(LIMIT);
        watchdog.handle_bytes(b"R.S", t);
        assert!(watchdog.is_stopping());
        let later = t + Duration::from_secs(5);
        watchdog.handle_bytes(b"..R", later);
        watchdog.handle_stop(later);
        watchdog.forgive(later);
        assert_eq!(watchdog.deadline(), Some(t + STOP_LIMIT));
    }

    #[test]
    fn a_kill_leaves_nothing_to_wait_for_and_keeps_what_the_death_was_for() {
        let t = Instant::now();
        for (words, stopping) in [(b"R.", false), (b"RS", true)] {
            let mut watchdog = Watchdog::new(LIMIT);
            watchdog.handle_bytes(words, t);
            watchdog.handle_kill();
            watchdog.handle_bytes(b"R", t + LIMIT);
            assert_eq!(watchdog.deadline(), None);
            assert_eq!(watchdog.is_stopping(), stopping);
            assert_eq!(watchdog.ready_since(), Some(t));
        }
    }

    #[test]
    fn our_own_absence_is_not_the_silence_of_the_process() {
        let t = Instant::now();
        let mut watchdog = Watchdog::new(LIMIT);
        watchdog.handle_bytes(b"R", t);
        let later = t + Duration::from_secs(60);
        watchdog.forgive(later);
        assert_eq!(left(&watchdog, later), Some(LIMIT));
    }
}
