//! The command line.

use crate::log::Level;
use std::net::SocketAddr;
use std::time::Duration;

#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    Help,
    Run(Arguments),
}

#[derive(Debug, PartialEq, Eq)]
pub struct Arguments {
    /// In the order of the command line, which is that of the descriptors.
    pub sockets: Vec<Place>,
    /// How long the process may be silent once it is ready.
    pub watchdog: Duration,
    /// Stop when this process, which started us, is gone.
    pub parent: Option<i32>,
    pub level: Level,
    /// Program and its arguments; never empty.
    pub command: Vec<String>,
}

/// Where a socket listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub transport: Transport,
    pub address: Address,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
    /// TCP, for balancers that ask how the process is: they wait with the clients while it comes back.
    Health,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// `*`: one socket for both families.
    Any(u16),
    One(SocketAddr),
}

pub fn parse(arguments: impl Iterator<Item = String>) -> Result<Parsed, String> {
    let mut rest = arguments;
    let mut parsed = Arguments {
        sockets: Vec::new(),
        watchdog: DEFAULT_WATCHDOG,
        parent: None,
        level: Level::Info,
        command: Vec::new(),
    };
    while let Some(option) = rest.next() {
        if option == "--" {
            parsed.command = rest.collect();
            break;
        }
        if option == "--help" || option == "-h" {
            return Ok(Parsed::Help);
        }
        let value = rest
            .next()
            .ok_or_else(|| format!("{option} needs a value; see --help"))?;
        match option.as_str() {
            "--tcp" => parsed.sockets.push(place(Transport::Tcp, &value)?),
            "--health" => parsed.sockets.push(place(Transport::Health, &value)?),
            "--udp" => parsed.sockets.push(place(Transport::Udp, &value)?),
            "--watchdog-ms" => parsed.watchdog = milliseconds(&value)?,
            "--parent" => parsed.parent = Some(process_id(&value)?),
            "--log-level" => parsed.level = Level::named(&value).ok_or(format!("{value} is no log level"))?,
            _ => return Err(format!("{option} is no option; see --help")),
        }
    }
    if parsed.command.is_empty() {
        return Err("no program is named; write it after --".into());
    }
    if parsed.sockets.len() > MAX_SOCKETS {
        return Err(format!(
            "{} sockets are more than {MAX_SOCKETS}",
            parsed.sockets.len()
        ));
    }
    Ok(Parsed::Run(parsed))
}

fn place(transport: Transport, text: &str) -> Result<Place, String> {
    let wrong =
        || format!("{text} is no address; write for example *:443, 192.0.2.1:443 or [2001:db8::1]:443");
    let address = match text.strip_prefix("*:") {
        Some(port) => Address::Any(port.parse().map_err(|_| wrong())?),
        None => Address::One(text.parse().map_err(|_| wrong())?),
    };
    Ok(Place { transport, address })
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(value @ 100..=600_000) => Ok(Duration::from_millis(value)),
        _ => Err(format!("{text} is no time from 100 to 600000 ms")),
    }
}

fn process_id(text: &str) -> Result<i32, String> {
    text.parse()
        .ok()
        .filter(|pid| *pid > 0)
        .ok_or_else(|| format!("{text} is no process id"))
}

impl std::fmt::Display for Place {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Address::Any(port) => write!(out, "{} *:{port}", self.transport.name()),
            Address::One(address) => write!(out, "{} {address}", self.transport.name()),
        }
    }
}

impl Transport {
    /// As it stands in LISTEN_FDNAMES.
    pub fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "tcp",
            Transport::Udp => "udp",
            Transport::Health => "health",
        }
    }
}

pub const HELP: &str = "\
Usage: sallyport-supervisor [OPTION...] -- PROGRAM [ARGUMENT...]

Opens sockets, starts PROGRAM with them (LISTEN_FDS, LISTEN_PID, LISTEN_FDNAMES; descriptors from 3 on), and starts it
again when it dies, while connections wait in the open sockets.

  --tcp ADDRESS       listen there; *:443 is both families. May be repeated.
  --udp ADDRESS       the same for UDP
  --health ADDRESS    the same for health and metrics (TCP)
  --watchdog-ms N     kill the process when it is silent for so long after it was ready (2000)
  --parent PID        stop when this process, which must be our parent, is gone
  --log-level LEVEL   error, warn, info (default), debug or trace

PROGRAM writes single bytes to the descriptor that $SALLYPORT_WATCHDOG_FD names:
  .  alive      R  ready, be strict from now on      S  a planned stop has begun: end with me
$SALLYPORT_STARTS says how many times it was started, this one included.

Signals: TERM, INT stop the process and end with its code; HUP is passed on when it is ready; USR2 stops it and then
starts it anew, on the same sockets.
";

pub const USAGE_EXIT: u8 = 2;
const DEFAULT_WATCHDOG: Duration = Duration::from_millis(2000);
const MAX_SOCKETS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(line: &str) -> Result<Arguments, String> {
        match parse(line.split(' ').map(String::from))? {
            Parsed::Run(arguments) => Ok(arguments),
            Parsed::Help => Err("help".into()),
        }
    }

    #[test]
    fn takes_sockets_in_order_and_all_after_the_dashes_as_the_command() {
        let parsed = run(
            "--tcp *:443 --udp [::1]:444 --health [::1]:9480 --watchdog-ms 500 --parent 7 -- node -x --tcp a",
        )
        .unwrap();
        let shown: Vec<String> = parsed.sockets.iter().map(Place::to_string).collect();
        assert_eq!(shown, ["tcp *:443", "udp [::1]:444", "health [::1]:9480"]);
        assert_eq!(parsed.watchdog, Duration::from_millis(500));
        assert_eq!(parsed.parent, Some(7));
        assert_eq!(parsed.command, ["node", "-x", "--tcp", "a"]);
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for (line, word) in [
            ("--tcp 443 -- x", "443 is no address"),
            ("--tcp *:70000 -- x", "*:70000 is no address"),
            ("--tcp localhost:443 -- x", "localhost:443 is no address"),
            ("--watchdog-ms 1 -- x", "1 is no time"),
            ("--parent 0 -- x", "0 is no process id"),
            ("--log-level loud -- x", "loud is no log level"),
            ("--nonsense x -- x", "--nonsense is no option"),
            ("--tcp", "--tcp needs a value"),
            ("--tcp *:1", "no program"),
        ] {
            let problem = run(line).unwrap_err();
            assert!(problem.contains(word), "{line}: {problem}");
        }
        let many = format!("{}-- x", "--tcp *:1 ".repeat(MAX_SOCKETS + 1));
        assert!(run(&many).unwrap_err().contains("more than 32"));
    }
}
