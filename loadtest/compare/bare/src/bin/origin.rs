//! An origin that answers every GET with the same 100 bytes, for as little CPU as possible.
//!
//! It looks only for the blank line that ends a request head: no bodies, no parsing. One
//! thread, keep-alive for ever, pipelined requests are answered in order.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const USAGE: &str = "usage: origin --listen 127.0.0.1:PORT";
const BODY_BYTES: usize = 100;
const HEAD_END: &[u8] = b"\r\n\r\n";
/// Longer request heads than this are not what a load test sends.
const HEAD_MAX_BYTES: usize = 16 * 1024;

fn response() -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
    );
    let mut response = head.into_bytes();
    response.extend(std::iter::repeat_n(b'x', BODY_BYTES - 1));
    response.push(b'\n');
    response
}

/// Complete request heads at the start of `buffer`, and the bytes they take.
fn complete_heads(buffer: &[u8]) -> (usize, usize) {
    let (mut count, mut end) = (0, 0);
    while let Some(at) = buffer[end..]
        .windows(HEAD_END.len())
        .position(|window| window == HEAD_END)
    {
        count += 1;
        end += at + HEAD_END.len();
    }
    (count, end)
}

async fn serve(mut stream: TcpStream, response: &[u8]) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; HEAD_MAX_BYTES];
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            return Ok(());
        }
        filled += read;
        let (count, end) = complete_heads(&buffer[..filled]);
        for _ in 0..count {
            stream.write_all(response).await?;
        }
        buffer.copy_within(end..filled, 0);
        filled -= end;
    }
}

fn main() -> io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some("--listen"), Some(address)) = (arguments.next().as_deref(), arguments.next()) else {
        eprintln!("{USAGE}");
        std::process::exit(2);
    };
    let response: &'static [u8] = response().leak();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            // a connection that breaks concerns nobody else
            tokio::spawn(async move { serve(stream, response).await.ok() });
        }
    })
}
