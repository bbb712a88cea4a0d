//! Sockets to listen on: one for each worker, all on the same address by `SO_REUSEPORT`, so that the kernel spreads
//! the connections. With that option a second process could join silently; hence the first, plain bind.

use std::io;
use std::net::{SocketAddr, TcpListener};

use rustix::net::sockopt::{set_socket_reuseaddr, set_socket_reuseport};
use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// Sockets that listen on one address.
#[derive(Debug)]
pub struct Listeners {
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

impl Listeners {
    /// The address, with the real port where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The sockets, to be set as a test wants them.
    #[cfg(test)]
    pub(super) fn sockets(&self) -> &[TcpListener] {
        &self.sockets
    }

    /// The sockets, one for each worker.
    pub(super) fn into_sockets(self) -> Vec<TcpListener> {
        self.sockets
    }
}

/// Listens on `listen` with as many sockets as there are workers (0: one for each core).
///
/// # Errors
/// If the address is in use or may not be used; the message names it.
pub fn bind(listen: SocketAddr, workers: usize) -> io::Result<Listeners> {
    let count = match workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        count => count,
    };
    let explain = |error| explained(listen, &error);
    probe(listen)?;
    let first = socket(listen, Sharing::WithWorkers).map_err(explain)?;
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(socket(address, Sharing::WithWorkers).map_err(explain)?);
    }
    for socket in &sockets {
        rustix::net::listen(socket, BACKLOG).map_err(|errno| explain(errno.into()))?;
    }
    Ok(Listeners { address, sockets })
}

/// Whether `listen` could be listened on now; nothing listens there for that.
///
/// # Errors
/// As [`bind`].
pub fn probe(listen: SocketAddr) -> io::Result<()> {
    socket(listen, Sharing::Alone).map(drop).map_err(|error| explained(listen, &error))
}

/// An error that names the address.
fn explained(listen: SocketAddr, error: &io::Error) -> io::Error {
    let message = match error.kind() {
        io::ErrorKind::AddrInUse => format!("address {listen} is in use"),
        io::ErrorKind::PermissionDenied => format!("no permission to listen on address {listen}"),
        io::ErrorKind::AddrNotAvailable => format!("address {listen} is not one of this machine"),
        _ => format!("cannot listen on address {listen}: {error}"),
    };
    io::Error::new(error.kind(), message)
}

/// Whether other sockets may bind the same address.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Alone,
    WithWorkers,
}

/// A socket that is bound to `address` and does not listen yet.
fn socket(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    // Connections of an earlier process that linger in TIME_WAIT do not hold the address.
    set_socket_reuseaddr(&socket, true)?;
    if sharing == Sharing::WithWorkers {
        set_socket_reuseport(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket.into())
}

/// Connections that wait to be accepted, for each socket; the kernel caps it at `net.core.somaxconn`.
pub(super) const BACKLOG: i32 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn f46_a_port_in_use_is_an_error_that_names_the_address() {
        let first = bind(ANY_PORT, 2).unwrap();
        let error = bind(first.address(), 2).unwrap_err();
        assert_eq!(error.to_string(), format!("address {} is in use", first.address()));
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        assert_eq!(probe(first.address()).unwrap_err().to_string(), error.to_string());
        drop(first.into_sockets());
    }

    #[test]
    fn f46_a_port_of_a_plain_listener_is_in_use_too() {
        let plain = TcpListener::bind(ANY_PORT).unwrap();
        assert_eq!(bind(plain.local_addr().unwrap(), 1).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn f46_a_foreign_address_is_an_error_that_names_it() {
        let error = bind("192.0.2.1:8080".parse().unwrap(), 1).unwrap_err();
        assert_eq!(error.to_string(), "address 192.0.2.1:8080 is not one of this machine");
    }

    #[test]
    fn port_zero_picks_one_port_for_all_workers_and_closing_frees_it() {
        let listeners = bind(ANY_PORT, 3).unwrap();
        let address = listeners.address();
        let sockets = listeners.into_sockets();
        assert_eq!(sockets.len(), 3);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        drop(sockets);
        probe(address).unwrap();
        assert_eq!(bind(address, 1).unwrap().address(), address);
    }
}
