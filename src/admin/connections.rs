//! Connections of the admin listener: a bounded number, and none that stands still for long.

use axum::serve::Listener;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// Connections at once; more wait to be accepted.
const MOST: usize = 256;

/// How long a connection may stand still, both ways.
const PATIENCE: Duration = Duration::from_secs(75);

/// Accepts connections while there are places.
pub(super) struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Bounded {
            listener,
            places: Arc::new(Semaphore::new(MOST)),
            patience: PATIENCE,
        }
    }
}

impl Listener for Bounded {
    type Io = Watched<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // never closed, so there is always a place in the end
        let place = self.places.clone().acquire_owned().await.ok();
        // axum waits and tries again where accepting fails
        let (stream, address) = Listener::accept(&mut self.listener).await;
        (Watched::new(stream, self.patience, place), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends where nothing moves.
pub(super) struct Watched<S> {
    stream: S,
    patience: Duration,
    ends: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Watched<S> {
    fn new(stream: S, patience: Duration, place: Option<OwnedSemaphorePermit>) -> Self {
        Watched {
            stream,
            patience,
            ends: Box::pin(tokio::time::sleep(patience)),
            _place: place,
        }
    }

    /// What came of moving bytes: if there was progress the clock starts anew, if none for too long
    /// the connection is over.
    fn watch<T>(
        &mut self,
        moved: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if moved.is_ready() {
            let now = Instant::from_std(crate::clock::Stopwatch::start().after(self.patience));
            self.ends.as_mut().reset(now);
            return moved;
        }
        ready!(pin!(&mut self.ends).poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.watch(moved, context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(moved, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.watch(moved, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let moved = Pin::new(&mut self.stream).poll_shutdown(context);
        self.watch(moved, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_place_is_free_again_once_a_connection_has_stood_still() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let bounded = Bounded {
                listener,
                places: Arc::new(Semaphore::new(1)),
                patience: Duration::from_millis(50),
            };
            let router = axum::Router::new().fallback(|| async { "here" });
            tokio::spawn(async move { axum::serve(bounded, router).await });
            let asked = tokio::task::spawn_blocking(move || {
                let mut silent = std::net::TcpStream::connect(address).unwrap();
                silent.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nX").unwrap();
                let mut other = std::net::TcpStream::connect(address).unwrap();
                let request = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
                other.write_all(request).unwrap();
                let mut answer = String::new();
                other.read_to_string(&mut answer).unwrap();
                answer
            });
            let asked = tokio::time::timeout(Duration::from_secs(10), asked);
            let answer = asked.await.unwrap().unwrap();
            assert!(answer.ends_with("here"), "{answer}");
        });
    }
}
