//! A client that writes bytes to a socket and reads answers off it, hiding nothing.

use crate::waiting::DEADLINE;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

pub(crate) struct Connection {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// One answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// statuses of the 1xx answers before it
    pub(crate) interim: Vec<u16>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum NoAnswer {
    /// the connection was closed before the end of one
    Closed,
    /// nothing came in time
    Silence,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Connection {
            stream,
            buffer: Vec::new(),
        }
    }

    /// Sends bytes; that the other side may have closed already shows in the answer.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Says that nothing more will be sent.
    pub(crate) fn finish_sending(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// A request with `Host` and, if there is a body, `Content-Length`; then its answer.
    pub(crate) fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Response {
        self.send(head(method, target, headers, body.len()));
        self.send(body);
        self.answer_to(method)
            .unwrap_or_else(|none| panic!("{method} {target}: {none:?}"))
    }

    pub(crate) fn answer(&mut self) -> Response {
        self.answer_to("GET")
            .unwrap_or_else(|none| panic!("{none:?}"))
    }

    /// The next answer; the method says whether it has a body.
    pub(crate) fn answer_to(&mut self, method: &str) -> Result<Response, NoAnswer> {
        let mut interim = Vec::new();
        loop {
            let (status, headers) = self.head()?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                continue;
            }
            let mut response = Response {
                status,
                headers,
                body: Vec::new(),
                interim,
            };
            if method != "HEAD" && !matches!(status, 101 | 204 | 304) {
                response.body = self.body(&response)?;
            }
            return Ok(response);
        }
    }

    /// The next head, interim or not.
    pub(crate) fn head(&mut self) -> Result<(u16, Vec<(String, String)>), NoAnswer> {
        let text = String::from_utf8_lossy(&self.until(b"\r\n\r\n")?).into_owned();
        let mut lines = text.trim_end().split("\r\n");
        let status_line = lines.next().unwrap_or_default();
        let status = status_line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {text:?}"));
        let header = |line: &str| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Ok((status, lines.map(header).collect()))
    }

    fn body(&mut self, response: &Response) -> Result<Vec<u8>, NoAnswer> {
        if response.header("transfer-encoding").is_some() {
            return self.chunked();
        }
        if let Some(length) = response.header("content-length") {
            return self.exactly(length.parse().unwrap());
        }
        while self.more()? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    fn chunked(&mut self) -> Result<Vec<u8>, NoAnswer> {
        let mut body = Vec::new();
        loop {
            let line = String::from_utf8_lossy(&self.until(b"\r\n")?).into_owned();
            let size = line.trim().split(';').next().unwrap_or_default();
            let size = usize::from_str_radix(size, 16).unwrap_or_else(|_| panic!("chunk {line:?}"));
            if size == 0 {
                // trailers, if any, up to the empty line
                while self.until(b"\r\n")?.len() > 2 {}
                return Ok(body);
            }
            body.extend(self.exactly(size)?);
            self.exactly(2)?;
        }
    }

    /// Everything up to and including a mark.
    pub(crate) fn until(&mut self, mark: &[u8]) -> Result<Vec<u8>, NoAnswer> {
        loop {
            let found = self
                .buffer
                .windows(mark.len())
                .position(|window| window == mark);
            if let Some(position) = found {
                return Ok(self.buffer.drain(..position + mark.len()).collect());
            }
            if !self.more()? {
                return Err(NoAnswer::Closed);
            }
        }
    }

    pub(crate) fn exactly(&mut self, bytes: usize) -> Result<Vec<u8>, NoAnswer> {
        while self.buffer.len() < bytes {
            if !self.more()? {
                return Err(NoAnswer::Closed);
            }
        }
        Ok(self.buffer.drain(..bytes).collect())
    }

    /// Reads more; false: the connection is closed.
    fn more(&mut self) -> Result<bool, NoAnswer> {
        let mut chunk = [0; 64 * 1024];
        let read = loop {
            match self.stream.read(&mut chunk) {
                // a read with a time limit is not begun anew by itself
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => (),
                read => break read,
            }
        };
        match read {
            Ok(0) => Ok(false),
            Ok(bytes) => {
                self.buffer.extend_from_slice(&chunk[..bytes]);
                Ok(true)
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Err(NoAnswer::Silence),
            Err(_) => Ok(false),
        }
    }

    /// Reads to the end of the connection or until nothing comes in time.
    pub(crate) fn whatever_comes(&mut self) -> Vec<u8> {
        while matches!(self.more(), Ok(true)) {}
        std::mem::take(&mut self.buffer)
    }

    /// Reads to the end of the connection: everything, or `Silence` where it stays open.
    pub(crate) fn rest(&mut self) -> Result<Vec<u8>, NoAnswer> {
        while self.more()? {}
        Ok(std::mem::take(&mut self.buffer))
    }
}

/// A request's head.
pub(crate) fn head(method: &str, target: &str, headers: &[(&str, &str)], length: usize) -> String {
    let mut text = format!("{method} {target} HTTP/1.1\r\n");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        text.push_str("Host: localhost\r\n");
    }
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if length > 0 {
        text.push_str(&format!("Content-Length: {length}\r\n"));
    }
    text + "\r\n"
}

impl Response {
    /// The only line of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self
            .headers
            .iter()
            .filter(|(is, _)| is.eq_ignore_ascii_case(name));
        let value = lines.next().map(|(_, value)| value.as_str());
        assert!(
            lines.next().is_none(),
            "{name} more than once: {:?}",
            self.headers
        );
        value
    }

    /// A header that must be there and be a whole number.
    pub(crate) fn number(&self, name: &str) -> u64 {
        let value = self
            .header(name)
            .unwrap_or_else(|| panic!("no {name}: {self}"));
        assert!(
            value.bytes().all(|byte| byte.is_ascii_digit()),
            "{name}: {value}"
        );
        value.parse().unwrap()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self}"))
    }
}

impl std::fmt::Display for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:?} {}", self.status, self.headers, self.text())
    }
}
