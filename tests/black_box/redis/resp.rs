//! The protocol of Redis, as far as tests need it (RESP2).

use crate::waiting::DEADLINE;
use std::io::{BufRead, BufReader, Error, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// What Redis answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// A simple or bulk string, or a number.
    Text(String),
    Nil,
    List(Vec<Reply>),
    /// An error with its code: `MOVED 1 127.0.0.1:6379`.
    Error(String),
}

impl Reply {
    /// The texts in it, one per line; of `Nil` nothing.
    pub(crate) fn text(&self) -> String {
        match self {
            Reply::Text(text) | Reply::Error(text) => text.clone(),
            Reply::Nil => String::new(),
            Reply::List(replies) => {
                let texts: Vec<_> = replies.iter().map(Reply::text).collect();
                texts.join("\n")
            }
        }
    }
}

trait Stream: Read + Write + Send {}
impl<S: Read + Write + Send> Stream for S {}

/// A connection to a Redis.
pub(crate) struct RedisConnection {
    stream: BufReader<Box<dyn Stream>>,
}

impl RedisConnection {
    /// Over TCP; nothing takes longer than the deadline of all tests.
    pub(crate) fn open(address: SocketAddr) -> Result<Self> {
        Self::open_for(address, DEADLINE)
    }

    /// Over TCP; connecting, sending and answering each take no longer than this.
    pub(crate) fn open_for(address: SocketAddr, timeout: Duration) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, timeout)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        let stream = BufReader::new(Box::new(stream) as Box<dyn Stream>);
        Ok(RedisConnection { stream })
    }

    /// Over a Unix socket.
    pub(super) fn open_socket(path: &Path) -> Result<Self> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let stream = BufReader::new(Box::new(stream) as Box<dyn Stream>);
        Ok(RedisConnection { stream })
    }

    /// One command and its answer.
    pub(crate) fn ask(&mut self, command: &[&str]) -> Result<Reply> {
        let mut bytes = format!("*{}\r\n", command.len());
        for word in command {
            bytes.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        self.stream.get_mut().write_all(bytes.as_bytes())?;
        self.reply()
    }

    fn reply(&mut self) -> Result<Reply> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let Some(rest) = line.strip_suffix("\r\n").and_then(|line| line.get(1..)) else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        let length = || rest.parse::<i64>().map_err(Error::other);
        match line.as_bytes()[0] {
            b'+' | b':' => Ok(Reply::Text(rest.to_owned())),
            b'-' => Ok(Reply::Error(rest.to_owned())),
            b'$' => self.bulk(length()?),
            b'*' => match length()? {
                -1 => Ok(Reply::Nil),
                length => (0..length)
                    .map(|_| self.reply())
                    .collect::<Result<_>>()
                    .map(Reply::List),
            },
            _ => Err(Error::other(format!("no reply of Redis: {line:?}"))),
        }
    }

    fn bulk(&mut self, length: i64) -> Result<Reply> {
        let Ok(length) = usize::try_from(length) else {
            return Ok(Reply::Nil);
        };
        let mut bytes = vec![0; length + 2];
        self.stream.read_exact(&mut bytes)?;
        bytes.truncate(length);
        Ok(Reply::Text(String::from_utf8_lossy(&bytes).into_owned()))
    }
}
