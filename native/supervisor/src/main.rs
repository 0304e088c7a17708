//! Holds the sockets of a serving process, so that a port never closes while that process dies and comes back.
//!
//!  1. arguments   `sallyport-supervisor --tcp *:443 -- PROGRAM ARGUMENT...`
//!  2. sockets     opened once; they stay open over every death of the process
//!  3. start       fork; descriptors from 3 on by the LISTEN_FDS convention, the watchdog's pipe behind them
//!  4. watch       signals, the pipe and deadlines in one poll
//!  5. death       start again at once; or close the port for a while; or end with the process
//!
//! One thread, one poll, no signal handler. The device that carries packets is never ours: it must die with the process.

mod arguments;
mod child;
mod log;
mod restarts;
mod sockets;
mod supervisor;
mod watchdog;

use std::process::ExitCode;

fn main() -> ExitCode {
    let parsed = match arguments::parse(std::env::args().skip(1)) {
        Ok(arguments::Parsed::Run(arguments)) => arguments,
        Ok(arguments::Parsed::Help) => {
            print!("{}", arguments::HELP);
            return ExitCode::SUCCESS;
        }
        Err(problem) => {
            eprintln!("sallyport-supervisor: {problem}");
            return ExitCode::from(arguments::USAGE_EXIT);
        }
    };
    match supervisor::run(parsed) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("sallyport-supervisor: {error}");
            ExitCode::FAILURE
        }
    }
}
