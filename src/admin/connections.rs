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

/// How long a request may take to say what it wants, from its first byte to the end of its headers,
/// and how long a new connection may take to begin. Nobody has shown a token until then.
const HEAD_PATIENCE: Duration = Duration::from_secs(10);

/// Accepts connections while there are places.
pub(super) struct Bounded {
    listener: TcpListener,
    places: Arc<Semaphore>,
    patience: Duration,
    head_patience: Duration,
}

impl Bounded {
    pub(super) fn new(listener: TcpListener) -> Self {
        Bounded {
            listener,
            places: Arc::new(Semaphore::new(MOST)),
            patience: PATIENCE,
            head_patience: HEAD_PATIENCE,
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
        let head = Head::new(self.head_patience);
        (Watched::new(stream, self.patience, head, place), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// Follows the headers of requests in what comes in, without reading them.
struct Head {
    patience: Duration,
    /// when they have to be complete; not there while an answer is awaited, or nothing has come
    /// since the last one
    ends: Option<Pin<Box<Sleep>>>,
    is_awaited: bool,
    /// lines may be empty before the first one that counts
    has_begun: bool,
    /// line ends in a row
    blank: u8,
}

impl Head {
    fn new(patience: Duration) -> Self {
        Head {
            patience,
            ends: Some(Box::pin(tokio::time::sleep(patience))),
            is_awaited: true,
            has_begun: false,
            blank: 0,
        }
    }

    fn came(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if !self.is_awaited {
                // the body, or the next request before this one is answered
                return;
            }
            match byte {
                b'\n' => self.blank += u8::from(self.has_begun),
                b'\r' => (),
                _ => (self.has_begun, self.blank) = (true, 0),
            }
            if self.ends.is_none() {
                self.ends = Some(Box::pin(tokio::time::sleep(self.patience)));
            }
            if self.blank >= 2 {
                self.is_awaited = false;
                self.ends = None;
            }
        }
    }

    /// What goes out answers the request; what comes in then is the next one.
    fn answered(&mut self) {
        if !self.is_awaited {
            (self.is_awaited, self.has_begun, self.blank) = (true, false, 0);
        }
    }

    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        let ends = self.ends.as_mut();
        ends.is_some_and(|ends| ends.as_mut().poll(context).is_ready())
    }
}

/// A connection that ends where nothing moves, or not enough to ask for something.
pub(super) struct Watched<S> {
    stream: S,
    head: Head,
    patience: Duration,
    ends: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Watched<S> {
    fn new(stream: S, patience: Duration, head: Head, place: Option<OwnedSemaphorePermit>) -> Self {
        Watched {
            stream,
            head,
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
        let before = buffer.filled().len();
        let moved = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.head
            .came(buffer.filled().get(before..).unwrap_or_default());
        if self.head.is_late(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
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
        self.head.answered();
        self.watch(moved, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let moved = Pin::new(&mut self.stream).poll_write_vectored(context, bytes);
        self.head.answered();
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
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
                head_patience: HEAD_PATIENCE,
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

    /// Reads from one end what `say` writes to the other; whether it comes to the end of that.
    async fn heard(
        patience: Duration,
        say: impl AsyncFnOnce(&mut tokio::io::DuplexStream),
    ) -> bool {
        let (mut here, there) = tokio::io::duplex(1_024);
        let mut watched = Watched::new(there, PATIENCE, Head::new(patience), None);
        let reading = async {
            let mut buffer = [0; 7];
            loop {
                match watched.read(&mut buffer).await {
                    Ok(0) => return true,
                    Ok(_) => (),
                    Err(_) => return false,
                }
            }
        };
        let saying = async {
            say(&mut here).await;
            drop(here);
        };
        tokio::join!(reading, saying).0
    }

    async fn drip(stream: &mut tokio::io::DuplexStream, bytes: &[u8], pause: Duration) {
        for byte in bytes {
            // the other end may be gone
            let _ = stream.write_all(&[*byte]).await;
            tokio::time::sleep(pause).await;
        }
    }

    #[tokio::test]
    async fn who_does_not_get_to_the_end_of_the_headers_loses_the_place() {
        let [short, long] = [30, 10_000].map(Duration::from_millis);
        let head = b"\r\n\r\nGET / HTTP/1.1\r\n\r\n";
        assert!(!heard(short, async |stream| drip(stream, head, short).await).await);
        assert!(!heard(short, async |_| tokio::time::sleep(short * 10).await).await);
        assert!(heard(long, async |stream| drip(stream, head, short).await).await);
        // a body may take its time: the token has been seen by then
        let slow_body = async |stream: &mut tokio::io::DuplexStream| {
            stream.write_all(head).await.unwrap();
            drip(stream, &[b'x'; 30], short).await;
        };
        assert!(heard(short * 20, slow_body).await);
    }

    #[tokio::test]
    async fn the_next_request_has_its_own_time_and_a_pause_before_it_none() {
        let patience = Duration::from_millis(200);
        let mut head = Head::new(patience);
        let late = async |head: &mut Head| {
            tokio::time::sleep(patience * 2).await;
            std::future::poll_fn(|context| Poll::Ready(head.is_late(context))).await
        };
        head.came(b"GET / HTTP/1.1\r\nHost: h\r");
        head.came(b"\n\r\n");
        assert!(!late(&mut head).await);
        head.answered();
        assert!(!late(&mut head).await);
        head.came(b"G");
        assert!(late(&mut head).await);
    }
}
