//! Listening sockets: one for each worker on the same address, between which the kernel divides
//! connections (`SO_REUSEPORT`, socket(7)).

use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{SocketAddr, TcpListener};

/// Connections that wait to be accepted; the kernel's own bound (`net.core.somaxconn`) is usually lower.
const BACKLOG: i32 = 65_535;

/// As many sockets as there are workers. An address that somebody listens on is an error, also if
/// that is another gateway whose sockets share their address among themselves.
pub(super) fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let first = socket(address)?;
    first.bind(&address.into())?;
    // without the option, which would let it join the sockets of any other gateway of this user
    first.listen(BACKLOG)?;
    first.set_reuse_port(workers > 1)?;
    let first = TcpListener::from(first);
    // a port 0 has become a real one
    let address = first.local_addr()?;
    let mut listeners = vec![first];
    for _ in 1..workers {
        let next = socket(address)?;
        next.set_reuse_port(true)?;
        next.bind(&address.into())?;
        next.listen(BACKLOG)?;
        listeners.push(next.into());
    }
    Ok(listeners)
}

fn socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // a restart finds connections of the process before it in TIME_WAIT
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Stopwatch;
    use std::net::TcpStream;
    use std::time::Duration;

    fn any() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[test]
    fn workers_share_an_address_and_its_connections() {
        let listeners = bind(any(), 4).unwrap();
        let address = listeners[0].local_addr().unwrap();
        let _clients: Vec<_> = (0..200)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let mut accepted = [0; 4];
        let begun = Stopwatch::start();
        // a connection may be ready a moment after its client believes so
        while accepted.iter().sum::<usize>() < 200 && begun.elapsed() < Duration::from_secs(10) {
            for (listener, accepted) in listeners.iter().zip(&mut accepted) {
                assert_eq!(listener.local_addr().unwrap(), address);
                *accepted += std::iter::from_fn(|| listener.accept().ok()).count();
            }
        }
        assert_eq!(accepted.iter().sum::<usize>(), 200);
        // a fair quarter is 50; fewer than 15 comes once in 10^10 times
        assert!(accepted.iter().all(|some| *some >= 15), "{accepted:?}");
    }

    #[test]
    fn an_address_is_taken_however_many_workers_there_are() {
        for (here, there) in [(1, 1), (1, 4), (4, 1), (4, 4)] {
            let listeners = bind(any(), here).unwrap();
            let address = listeners[0].local_addr().unwrap();
            let taken = bind(address, there).unwrap_err();
            assert_eq!(taken.kind(), io::ErrorKind::AddrInUse, "{here} {there}");
        }
    }
}
