//! Steps 2 to 5 of main.rs.
//!
//! ```text
//!             ┌────────── death: at once ───────────┐
//!             ▼                                     │
//!  open ──▶ running ── crash loop ──▶ closed, waiting
//!             │  ▲                        │
//!             │  └── wait over, or USR2 ──┘
//!             └── TERM, INT, or the process stops by itself ──▶ end with its code
//! ```

use crate::arguments::Arguments;
use crate::child::{self, Plan, Started};
use crate::log::{Level, Log, Value};
use crate::restarts::{After, Restarts};
use crate::sockets;
use crate::watchdog::Watchdog;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, read};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// @returns the exit code.
pub fn run(arguments: Arguments) -> nix::Result<u8> {
    child::close_from(3)?;
    let signals = watched_signals();
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    if let Some(parent) = arguments.parent {
        child::die_with(Pid::from_raw(parent), Signal::SIGTERM)?;
    }
    let mut supervisor = Supervisor {
        log: Log::new(arguments.level),
        arguments,
        signals,
        sockets: None,
        phase: Phase::Waiting(Instant::now()),
        intent: Intent::Keep,
        restarts: Restarts::default(),
        starts: 0,
        was_ever_ready: false,
    };
    supervisor.start()?;
    loop {
        if let Some(code) = supervisor.turn()? {
            return Ok(code);
        }
    }
}

struct Supervisor {
    arguments: Arguments,
    log: Log,
    signals: SignalFd,
    /// None = closed, or could not be opened.
    sockets: Option<Vec<OwnedFd>>,
    phase: Phase,
    intent: Intent,
    restarts: Restarts,
    starts: u64,
    was_ever_ready: bool,
}

enum Phase {
    Running(Process),
    /// Until then there is no process and no open port.
    Waiting(Instant),
}

struct Process {
    pid: Pid,
    /// None = the process has closed its end.
    pipe: Option<OwnedFd>,
    watchdog: Watchdog,
    started: Instant,
    /// SIGHUP before it is ready would end it.
    owes_reload: bool,
}

/// What the next death of the process is for.
#[derive(PartialEq, Eq)]
enum Intent {
    Keep,
    StopSince(Instant),
    Renew,
}

impl Supervisor {
    /// One wait and all that came of it. @returns the exit code when it is over.
    fn turn(&mut self) -> nix::Result<Option<u8>> {
        let deadline = self.deadline();
        self.wait_until(deadline)?;
        let now = Instant::now();
        self.hear(now);
        while let Some(signal) = self.signals.read_signal()? {
            let over = match Signal::try_from(signal.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => self.reap(now)?,
                Ok(signal) => self.handle_signal(signal, now)?,
                Err(_) => None,
            };
            if over.is_some() {
                return Ok(over);
            }
        }
        self.handle_time(now, deadline)?;
        Ok(None)
    }

    fn deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Running(process) => process.watchdog.deadline(),
            Phase::Waiting(until) => Some(*until),
        }
    }

    fn wait_until(&self, deadline: Option<Instant>) -> nix::Result<()> {
        let timeout = deadline.map_or(PollTimeout::NONE, |deadline| {
            // Rounded up, or the last millisecond would be spent in a loop.
            let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        let mut watched = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Phase::Running(Process { pipe: Some(pipe), .. }) = &self.phase {
            watched.push(PollFd::new(pipe.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut watched, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(error),
        }
    }

    // 3. start

    fn start(&mut self) -> nix::Result<()> {
        if self.sockets.is_none() {
            match sockets::open_all(&self.arguments.sockets) {
                Ok(opened) => self.sockets = Some(opened),
                // The process opens them itself then, or says what is wrong in its own words.
                Err(problem) => {
                    self.log.write(
                        Level::Debug,
                        "cannot open the sockets",
                        &[("problem", problem.into())],
                    );
                }
            }
        }
        self.starts += 1;
        let plan = Plan {
            command: &self.arguments.command,
            sockets: self.sockets.as_deref().unwrap_or_default(),
            names: self
                .arguments
                .sockets
                .iter()
                .map(|place| place.transport.name())
                .collect(),
            starts: self.starts,
        };
        let Started { pid, pipe } = child::start(&plan)?;
        self.log.write(Level::Debug, "started", &[("pid", number(pid))]);
        self.phase = Phase::Running(Process {
            pid,
            pipe: Some(pipe),
            watchdog: Watchdog::new(self.arguments.watchdog),
            started: Instant::now(),
            owes_reload: false,
        });
        Ok(())
    }

    // 4. watch

    /// Reads all that the process has said.
    fn hear(&mut self, now: Instant) {
        let Phase::Running(process) = &mut self.phase else {
            return;
        };
        let mut buffer = [0; 4096];
        while let Some(pipe) = &process.pipe {
            match read(pipe, &mut buffer) {
                Ok(0) => process.pipe = None,
                Ok(length) => process.watchdog.handle_bytes(&buffer[..length], now),
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        if process.watchdog.ready_since() == Some(now) {
            self.was_ever_ready = true;
            self.log
                .write(Level::Debug, "ready", &[("pid", number(process.pid))]);
            if process.owes_reload {
                process.owes_reload = false;
                send(process.pid, Signal::SIGHUP);
            }
            if self.sockets.is_none() && !self.arguments.sockets.is_empty() {
                let message = "the process opened its port by itself, and it will close with the process";
                self.log.write(Level::Warn, message, &[]);
            }
        }
        if process.watchdog.is_stopping() {
            self.turn_away();
        }
    }

    /// Nobody will serve who connects from now on: better refused at once, so that a balancer tries another node, than
    /// waiting in the backlog until the end.
    fn turn_away(&mut self) {
        if self.intent != Intent::Renew {
            self.sockets = None;
        }
    }

    fn handle_signal(&mut self, signal: Signal, now: Instant) -> nix::Result<Option<u8>> {
        let process = match &mut self.phase {
            Phase::Running(process) => process,
            Phase::Waiting(_) => match signal {
                Signal::SIGUSR2 => return self.start().map(|()| None),
                Signal::SIGHUP => return Ok(None),
                _ => return Ok(Some(0)),
            },
        };
        match signal {
            Signal::SIGHUP if process.watchdog.ready_since().is_some() => send(process.pid, signal),
            Signal::SIGHUP => process.owes_reload = true,
            // Two processes must never read one UDP socket: the new one starts when the old one is gone.
            Signal::SIGUSR2 if self.intent == Intent::Keep => {
                self.log.write(
                    Level::Info,
                    "the process is renewed",
                    &[("pid", number(process.pid))],
                );
                self.intent = Intent::Renew;
                process.watchdog.handle_stop(now);
                send(process.pid, Signal::SIGTERM);
            }
            Signal::SIGUSR2 => {}
            _ => {
                let is_echo =
                    matches!(self.intent, Intent::StopSince(since) if now.duration_since(since) < ECHO);
                if !is_echo {
                    self.intent = Intent::StopSince(now);
                    process.watchdog.handle_stop(now);
                    send(process.pid, signal);
                    self.turn_away();
                }
            }
        }
        Ok(None)
    }

    fn handle_time(&mut self, now: Instant, deadline: Option<Instant>) -> nix::Result<()> {
        let is_due = self.deadline().is_some_and(|deadline| now >= deadline);
        match &mut self.phase {
            Phase::Waiting(_) if is_due => {
                self.log.write(Level::Info, "trying again", &[]);
                self.start()
            }
            Phase::Running(process) if is_due => {
                // Paused or starved ourselves: the process may have been as well.
                if deadline.is_some_and(|deadline| now.duration_since(deadline) > LATE) {
                    process.watchdog.forgive(now);
                }
                if process
                    .watchdog
                    .deadline()
                    .is_some_and(|deadline| now >= deadline)
                {
                    let why = if process.watchdog.is_stopping() {
                        "did not stop"
                    } else {
                        "was silent"
                    };
                    let fields = [("pid", number(process.pid)), ("why", Value::Text(why.into()))];
                    self.log.write(Level::Warn, "the process is killed", &fields);
                    send(process.pid, Signal::SIGKILL);
                    process.watchdog.handle_kill();
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    // 5. death

    /// Takes all children that died; as process 1 of a container also those of others.
    fn reap(&mut self, now: Instant) -> nix::Result<Option<u8>> {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
                Ok(status) => status,
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error),
            };
            let end = match status {
                WaitStatus::Exited(pid, code) => (pid, End::Code(code)),
                WaitStatus::Signaled(pid, signal, _) => (pid, End::Signal(signal)),
                _ => continue,
            };
            let is_ours = matches!(&self.phase, Phase::Running(process) if process.pid == end.0);
            if is_ours {
                // It may have written and died since the last look.
                self.hear(now);
                if let Some(code) = self.handle_death(end.1, now)? {
                    return Ok(Some(code));
                }
            }
        }
    }

    fn handle_death(&mut self, end: End, now: Instant) -> nix::Result<Option<u8>> {
        let Phase::Running(process) = &self.phase else {
            return Ok(None);
        };
        if self.intent == Intent::Renew {
            self.intent = Intent::Keep;
            return self.start().map(|()| None);
        }
        let is_planned = self.intent != Intent::Keep || process.watchdog.is_stopping() || end == End::Code(0);
        // What was wrong from the beginning will not get better: the process has said what it is.
        let is_hopeless = !self.was_ever_ready && matches!(end, End::Code(1 | 126 | child::CANNOT_RUN_EXIT));
        if is_planned || is_hopeless {
            return Ok(Some(end.code()));
        }
        let fields = [
            ("pid", number(process.pid)),
            ("end", Value::Text(end.to_string())),
            (
                "aliveMs",
                Value::Number(now.duration_since(process.started).as_millis() as u64),
            ),
        ];
        match self.restarts.handle_death(now, process.watchdog.ready_since()) {
            After::StartAtOnce => {
                self.log
                    .write(Level::Warn, "the process died and is started again", &fields);
                self.start()?;
            }
            After::CloseFor(wait) => {
                let [pid, end, alive] = fields;
                let fields = [pid, end, alive, ("waitSeconds", Value::Number(wait.as_secs()))];
                let message = "the process dies again and again: its port is closed until it is tried again";
                self.log.write(Level::Error, message, &fields);
                self.sockets = None;
                self.phase = Phase::Waiting(now + wait);
            }
        }
        Ok(None)
    }
}

#[derive(PartialEq, Eq)]
enum End {
    Code(i32),
    Signal(Signal),
}

impl End {
    /// As shells have it.
    fn code(&self) -> u8 {
        match self {
            End::Code(code) => *code as u8,
            End::Signal(signal) => 128 + *signal as u8,
        }
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            End::Code(code) => write!(out, "exit code {code}"),
            End::Signal(signal) => write!(out, "{signal}"),
        }
    }
}

fn watched_signals() -> SigSet {
    [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .collect()
}

/// A process that is just gone is reaped in the next turn.
fn send(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}

fn number(pid: Pid) -> Value {
    Value::Number(pid.as_raw() as u64)
}

/// A terminal, npm and a launcher may each pass on the same Ctrl-C.
const ECHO: Duration = Duration::from_millis(500);
/// A wait that ends so much later than planned.
const LATE: Duration = Duration::from_millis(500);
