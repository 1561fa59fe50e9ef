//! A TCP forwarder that can be slow, go silent, or refuse.

use super::ports;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

/// A wire to a server: what connects to its address reaches the server, as the wire's state allows.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: SocketAddr,
    state: Mutex<State>,
    changed: Condvar,
}

/// What the wire does with bytes.
#[derive(Default)]
struct State {
    /// How long they take towards the server and back.
    delays: [Duration; 2],
    silent: bool,
    /// Connections accepted before this many are silent for ever.
    dead: usize,
    refusing: bool,
    /// Whether the wire is to be torn down.
    over: bool,
    /// Both ends of every connection.
    streams: Vec<[TcpStream; 2]>,
    accepted: usize,
}

#[derive(Clone, Copy)]
enum Direction {
    There = 0,
    Back = 1,
}

impl Wire {
    /// A wire that forwards at once.
    pub(crate) fn before(server: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            server,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let listener = (0..ports::ATTEMPTS)
            .find_map(|_| TcpListener::bind(("127.0.0.1", ports::probably_free())).ok())
            .expect("a free port");
        let address = listener.local_addr().unwrap();
        shared.clone().listen(listener);
        Wire { address, shared }
    }

    /// The URL of a Redis without a login behind it.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// How long bytes take from now on, towards the server and back; also those that are under way.
    pub(crate) fn delay(&self, there: Duration, back: Duration) {
        self.shared.change(|state| state.delays = [there, back]);
    }

    /// A black hole: connections stay and new ones are accepted, but nothing arrives. What is under way is kept.
    pub(crate) fn go_silent(&self) {
        self.shared.change(|state| state.silent = true);
    }

    /// A black hole for the connections there are, for ever; new ones are forwarded.
    pub(crate) fn lose_connections(&self) {
        self.shared.change(|state| state.dead = state.accepted);
    }

    /// Breaks all connections and refuses new ones.
    pub(crate) fn refuse(&self) {
        self.shared.change(|state| state.refusing = true);
        self.cut();
        // each attempt wakes the listener, which then is closed
        crate::waiting::until("the wire refuses", || {
            TcpStream::connect(self.address).is_err()
        });
    }

    /// Breaks all connections; new ones are accepted.
    pub(crate) fn cut(&self) {
        for stream in self.shared.lock().streams.drain(..).flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.shared.changed.notify_all();
    }

    /// Ends every trouble; what a silent wire has kept arrives now.
    pub(crate) fn heal(&self) {
        let mut was_refusing = false;
        self.shared.change(|state| {
            was_refusing = std::mem::take(&mut state.refusing);
            state.silent = false;
            state.delays = [Duration::ZERO; 2];
        });
        if was_refusing {
            let listener = TcpListener::bind(self.address).unwrap();
            self.shared.clone().listen(listener);
        }
    }

    /// How many connections it has accepted.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.lock().accepted
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.change(|state| state.over = true);
        self.cut();
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Accepts on a thread of its own until the wire refuses or is over.
    fn listen(self: Arc<Self>, listener: TcpListener) {
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let is_closed = |state: &State| state.refusing || state.over;
                if is_closed(&self.lock()) {
                    return;
                }
                // a dead server shows as a connection that closes at once
                let Ok(server) = TcpStream::connect(self.server) else {
                    continue;
                };
                let mut state = self.lock();
                if is_closed(&state) {
                    return;
                }
                let number = state.accepted;
                state.accepted += 1;
                let clones = [client.try_clone().unwrap(), server.try_clone().unwrap()];
                state.streams.push(clones);
                drop(state);
                let _ = (client.set_nodelay(true), server.set_nodelay(true));
                let backwards = (server.try_clone().unwrap(), client.try_clone().unwrap());
                for (from, to, direction) in [
                    (client, server, Direction::There),
                    (backwards.0, backwards.1, Direction::Back),
                ] {
                    self.clone().forward(from, to, (number, direction));
                }
            }
        });
    }

    /// Two threads: one reads and says when, the other waits and writes.
    fn forward(self: Arc<Self>, mut from: TcpStream, mut to: TcpStream, way: (usize, Direction)) {
        let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
        std::thread::spawn(move || {
            let mut chunk = [0; 64 * 1024];
            while let Ok(length @ 1..) = from.read(&mut chunk) {
                let bytes = chunk[..length].to_vec();
                if sender.send((Instant::now(), bytes)).is_err() {
                    break;
                }
            }
        });
        std::thread::spawn(move || {
            for (read, bytes) in receiver {
                if !self.wait_until_due(read, way) || to.write_all(&bytes).is_err() {
                    break;
                }
            }
            // an end takes as long as bytes do
            self.wait_until_due(Instant::now(), way);
            let _ = to.shutdown(Shutdown::Write);
        });
    }

    /// Waits until bytes that were read then may go on; false where the wire is over.
    fn wait_until_due(&self, read: Instant, (number, direction): (usize, Direction)) -> bool {
        let mut state = self.lock();
        loop {
            if state.over {
                return false;
            }
            let delay = state.delays[direction as usize];
            let rest = (read + delay).saturating_duration_since(Instant::now());
            let silent = state.silent || number < state.dead;
            if !silent && rest.is_zero() {
                return true;
            }
            let rest = if silent { Duration::from_secs(1) } else { rest };
            state = self.changed.wait_timeout(state, rest).unwrap().0;
        }
    }
}
