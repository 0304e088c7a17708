//! The one place that forks.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, execvpe, fork, getpid, getppid, pipe2, setpgid};
use std::ffi::CString;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;

pub struct Started {
    pub pid: Pid,
    /// Where the process says that it lives.
    pub pipe: OwnedFd,
}

pub struct Plan<'a> {
    pub command: &'a [String],
    pub sockets: &'a [OwnedFd],
    /// One for each socket.
    pub names: Vec<&'static str>,
    /// This start included.
    pub starts: u64,
}

pub fn start(plan: &Plan) -> nix::Result<Started> {
    let (pipe, childs_end) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let supervisor = getpid();
    // SAFETY: this program has one thread, so the child may do all that the parent may.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(Started { pid: child, pipe }),
        ForkResult::Child => {
            let error = become_program(plan, childs_end.as_fd(), supervisor).unwrap_err();
            let line = format!(
                "sallyport-supervisor: cannot run {}: {}\n",
                plan.command[0],
                error.desc()
            );
            let _ = std::io::stderr().write_all(line.as_bytes());
            // SAFETY: ends the child without the parent's clean-up.
            unsafe { libc::_exit(CANNOT_RUN_EXIT) }
        }
    }
}

/// Closes every descriptor from `first` on.
pub fn close_from(first: RawFd) -> nix::Result<()> {
    // SAFETY: callers own no descriptor from there on.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first as libc::c_uint, libc::c_uint::MAX, 0) };
    Errno::result(done).map(drop)
}

/// Sends `signal` to this process when its parent dies.
pub fn die_with(parent: Pid, signal: Signal) -> nix::Result<()> {
    nix::sys::prctl::set_pdeathsig(signal)?;
    // It may have died before.
    if getppid() == parent {
        Ok(())
    } else {
        Err(Errno::ESRCH)
    }
}

fn become_program(plan: &Plan, pipe: BorrowedFd, supervisor: Pid) -> nix::Result<std::convert::Infallible> {
    die_with(supervisor, Signal::SIGKILL)?;
    // A terminal's Ctrl-C is for the supervisor, which passes it on once.
    setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
    // SAFETY: no handler is installed. Rust ignores SIGPIPE, and programs inherit that.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    place_descriptors(plan.sockets, pipe)?;
    let arguments: Vec<CString> = plan
        .command
        .iter()
        .map(|word| c_string(word.as_str()))
        .collect::<Result<_, _>>()?;
    execvpe(&arguments[0], &arguments, &environment(plan)?)
}

/// Sockets from 3 on, then the pipe; nothing above.
fn place_descriptors(sockets: &[OwnedFd], pipe: BorrowedFd) -> nix::Result<()> {
    let all: Vec<BorrowedFd> = sockets.iter().map(AsFd::as_fd).chain([pipe]).collect();
    let end = FIRST_DESCRIPTOR + all.len() as RawFd;
    // Out of the way first: what is one's place may be another's source.
    let aside: Vec<RawFd> = all
        .iter()
        .map(|fd| fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(end)))
        .collect::<Result<_, _>>()?;
    for (source, place) in aside.into_iter().zip(FIRST_DESCRIPTOR..) {
        // SAFETY: dup2 has no preconditions; the descriptor at `place` is the parent's, of which this is a copy.
        Errno::result(unsafe { libc::dup2(source, place) })?;
    }
    close_from(end)
}

fn environment(plan: &Plan) -> nix::Result<Vec<CString>> {
    let kept = std::env::vars_os().filter(|(name, _)| !OWN_VARIABLES.iter().any(|own| name == own));
    let mut all: Vec<CString> = kept
        .map(|(name, value)| {
            let mut pair = name.into_vec();
            pair.push(b'=');
            pair.extend(value.into_vec());
            c_string(pair)
        })
        .collect::<Result<_, _>>()?;
    let count = plan.sockets.len();
    if count > 0 {
        all.push(c_string(format!("LISTEN_FDS={count}"))?);
        all.push(c_string(format!("LISTEN_PID={}", getpid()))?);
        all.push(c_string(format!("LISTEN_FDNAMES={}", plan.names.join(":")))?);
    }
    all.push(c_string(format!(
        "{WATCHDOG_VARIABLE}={}",
        FIRST_DESCRIPTOR as usize + count
    ))?);
    all.push(c_string(format!("{STARTS_VARIABLE}={}", plan.starts))?);
    Ok(all)
}

fn c_string(bytes: impl Into<Vec<u8>>) -> nix::Result<CString> {
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}

/// sd_listen_fds(3).
const FIRST_DESCRIPTOR: RawFd = 3;
const WATCHDOG_VARIABLE: &str = "SALLYPORT_WATCHDOG_FD";
const STARTS_VARIABLE: &str = "SALLYPORT_STARTS";
const OWN_VARIABLES: [&str; 5] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    WATCHDOG_VARIABLE,
    STARTS_VARIABLE,
];
/// As shells have it.
pub const CANNOT_RUN_EXIT: i32 = 127;
