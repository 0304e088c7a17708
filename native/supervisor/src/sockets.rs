//! The sockets that outlive the process.

use crate::arguments::{Address, Place, Transport};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

/// Opens all or none. The error names the place.
pub fn open_all(places: &[Place]) -> Result<Vec<OwnedFd>, String> {
    places
        .iter()
        .map(|place| open(place).map_err(|error| format!("{place}: {}", error.desc())))
        .collect()
}

fn open(place: &Place) -> nix::Result<OwnedFd> {
    match place.address {
        Address::One(address) => open_at(place.transport, address),
        Address::Any(port) => match open_at(place.transport, (Ipv6Addr::UNSPECIFIED, port).into()) {
            // A machine without IPv6.
            Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => {
                open_at(place.transport, (Ipv4Addr::UNSPECIFIED, port).into())
            }
            opened => opened,
        },
    }
}

fn open_at(transport: Transport, address: SocketAddr) -> nix::Result<OwnedFd> {
    let family = if address.is_ipv6() {
        AddressFamily::Inet6
    } else {
        AddressFamily::Inet
    };
    let kind = match transport {
        Transport::Tcp => SockType::Stream,
        Transport::Udp => SockType::Datagram,
    };
    let fd = socket(
        family,
        kind,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &false)?;
    }
    if transport == Transport::Tcp {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(address))?;
    if transport == Transport::Tcp {
        listen(&fd, Backlog::new(BACKLOG)?)?;
    }
    Ok(fd)
}

/// All clients of a node come at once after a crash, and wait here.
const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::getsockname;
    use std::net::TcpStream;

    fn port(fd: &OwnedFd) -> u16 {
        let name: SockaddrStorage = getsockname(fd.as_raw_fd()).unwrap();
        name.as_sockaddr_in6()
            .map(|v6| v6.port())
            .or(name.as_sockaddr_in().map(|v4| v4.port()))
            .unwrap()
    }

    #[test]
    fn any_is_one_socket_for_both_families() {
        let fds = open_all(&[Place {
            transport: Transport::Tcp,
            address: Address::Any(0),
        }])
        .unwrap();
        assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, port(&fds[0]))).is_ok());
        // Absent on machines without IPv6.
        if open_at(Transport::Tcp, (Ipv6Addr::LOCALHOST, 0).into()).is_ok() {
            assert!(TcpStream::connect((Ipv6Addr::LOCALHOST, port(&fds[0]))).is_ok());
        }
    }

    #[test]
    fn a_taken_port_is_an_error_that_names_it_and_leaves_nothing_open() {
        let taken = open_at(Transport::Tcp, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port(&taken)));
        let udp = Place {
            transport: Transport::Udp,
            address: Address::One(address),
        };
        let tcp = Place {
            transport: Transport::Tcp,
            address: Address::One(address),
        };
        let error = open_all(&[udp.clone(), tcp]).unwrap_err();
        assert!(error.starts_with(&format!("tcp {address}: ")), "{error}");
        assert!(open(&udp).is_ok(), "the UDP socket is closed again");
    }
}
