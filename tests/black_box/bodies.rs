//! Bodies of any size stream through in both directions, in bounded memory.

use crate::client::head;
use crate::gateway::{EVERYTHING, Gateway, app};
use crate::upstream::{Then, Upstream, header_in};
use crate::waiting::{DEADLINE, pause};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const PIECE: usize = 64 * 1024;
const PIECES: usize = 800;
const WHOLE: usize = PIECE * PIECES;
const MOST_KIB: u64 = 150 * 1024;

fn before(upstream: &Upstream) -> Gateway {
    Gateway::start(&(app(upstream.address) + EVERYTHING))
}

/// The most memory the process has had so far.
fn peak_kib(gateway: &Gateway) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.process_id())).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A piece whose bytes say which one it is.
fn piece(number: usize) -> Vec<u8> {
    vec![(number % 251) as u8; PIECE]
}

/// Waits until a counter stands still: whoever feeds it can get no further.
fn stands_still(counter: &AtomicUsize) -> usize {
    let mut last = 0;
    loop {
        pause(Duration::from_millis(150));
        let now = counter.load(Ordering::SeqCst);
        if now == last && now > 0 {
            return now;
        }
        last = now;
    }
}

#[test]
fn a_response_of_50_mib_streams_at_the_pace_of_a_slow_client() {
    for chunked in [false, true] {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = sent.clone();
        let upstream = Upstream::scripted(move |exchange| {
            exchange.write(if chunked {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned()
            } else {
                format!("HTTP/1.1 200 OK\r\nContent-Length: {WHOLE}\r\n\r\n")
            })?;
            for number in 0..PIECES {
                let mut bytes = piece(number);
                if chunked {
                    bytes = [format!("{PIECE:x}\r\n").as_bytes(), &bytes, b"\r\n"].concat();
                }
                exchange.write(bytes)?;
                counter.fetch_add(PIECE, Ordering::SeqCst);
            }
            if chunked {
                exchange.write("0\r\n\r\n")?;
            }
            Ok(Then::Keep)
        });
        let gateway = before(&upstream);
        let mut connection = gateway.connect();
        connection.send(head("GET", "/", &[], 0));
        let unread = stands_still(&sent);
        assert!(
            unread < WHOLE,
            "the gateway took all of it while nobody read"
        );
        let response = connection.answer();
        assert_eq!(response.status, 200);
        assert_eq!(response.body.len(), WHOLE);
        for (number, got) in response.body.chunks(PIECE).enumerate() {
            assert!(got == piece(number), "piece {number} differs");
        }
        assert!(peak_kib(&gateway) < MOST_KIB, "{} KiB", peak_kib(&gateway));
    }
}

#[test]
fn a_request_of_50_mib_streams_at_the_pace_of_a_slow_upstream() {
    for chunked in [false, true] {
        let go = Arc::new(AtomicBool::new(false));
        let wait = go.clone();
        let upstream = Upstream::scripted(move |exchange| {
            while !wait.load(Ordering::SeqCst) {
                pause(Duration::from_millis(2));
            }
            let body = exchange.body()?;
            let intact = body
                .chunks(PIECE)
                .enumerate()
                .all(|(at, got)| got == piece(at));
            exchange.answer(format!("{} {intact}", body.len()))
        });
        let gateway = before(&upstream);
        let mut connection = gateway.connect();
        let mut upload = connection.stream.try_clone().unwrap();
        upload.set_write_timeout(Some(DEADLINE)).unwrap();
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = sent.clone();
        let sending = std::thread::spawn(move || -> std::io::Result<()> {
            let framing = if chunked {
                ("Transfer-Encoding", "chunked".to_owned())
            } else {
                ("Content-Length", WHOLE.to_string())
            };
            upload.write_all(head("POST", "/", &[(framing.0, &framing.1)], 0).as_bytes())?;
            for number in 0..PIECES {
                let mut bytes = piece(number);
                if chunked {
                    bytes = [format!("{PIECE:x}\r\n").as_bytes(), &bytes, b"\r\n"].concat();
                }
                upload.write_all(&bytes)?;
                counter.fetch_add(PIECE, Ordering::SeqCst);
            }
            if chunked {
                upload.write_all(b"0\r\n\r\n")
            } else {
                Ok(())
            }
        });
        let unread = stands_still(&sent);
        assert!(
            unread < WHOLE,
            "the gateway took all of it while nobody read"
        );
        go.store(true, Ordering::SeqCst);
        let response = connection.answer();
        sending.join().unwrap().unwrap();
        assert_eq!(
            response.text(),
            format!("{WHOLE} true"),
            "chunked: {chunked}"
        );
        assert!(peak_kib(&gateway) < MOST_KIB, "{} KiB", peak_kib(&gateway));
    }
}

#[test]
fn the_framing_of_a_body_is_kept() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    connection.send(head("POST", "/", &[("Transfer-Encoding", "chunked")], 0));
    connection.send("5\r\nhello\r\n6;extension=1\r\n world\r\n0\r\n\r\n");
    let seen = connection.answer().text();
    assert_eq!(header_in(&seen, "transfer-encoding"), Some("chunked"));
    assert_eq!(header_in(&seen, "content-length"), None);
    let seen = connection.request("POST", "/", &[], b"hello world").text();
    assert_eq!(header_in(&seen, "content-length"), Some("11"));
    assert_eq!(header_in(&seen, "transfer-encoding"), None);
    assert_eq!(upstream.bodies(), [b"hello world", b"hello world"]);
}

#[test]
fn each_chunk_of_a_response_passes_as_soon_as_it_comes() {
    let go = Arc::new(AtomicBool::new(false));
    let wait = go.clone();
    let upstream = Upstream::scripted(move |exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        exchange.write("6\r\nfirst \r\n")?;
        while !wait.load(Ordering::SeqCst) {
            pause(Duration::from_millis(2));
        }
        exchange.write("6\r\nsecond\r\n0\r\n\r\n")?;
        Ok(Then::Keep)
    });
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    connection.send(head("GET", "/events", &[], 0));
    connection.until(b"first ").unwrap();
    go.store(true, Ordering::SeqCst);
    connection.until(b"second").unwrap();
}

#[test]
fn each_chunk_of_a_request_passes_as_soon_as_it_comes() {
    let got = Arc::new(AtomicUsize::new(0));
    let counter = got.clone();
    let upstream = Upstream::scripted(move |exchange| {
        let mut bytes = [0; 1024];
        let mut all = std::mem::take(&mut exchange.buffer);
        loop {
            if all.windows(5).any(|window| window == b"first") {
                counter.store(1, Ordering::SeqCst);
            }
            if all.ends_with(b"0\r\n\r\n") {
                return exchange.answer("all of it");
            }
            let read = exchange.stream.read(&mut bytes)?;
            all.extend_from_slice(&bytes[..read]);
        }
    });
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    connection.send(head("POST", "/", &[("Transfer-Encoding", "chunked")], 0));
    connection.send("5\r\nfirst\r\n");
    crate::waiting::until("the upstream has the first chunk", || {
        got.load(Ordering::SeqCst) == 1
    });
    connection.send("6\r\nsecond\r\n0\r\n\r\n");
    assert_eq!(connection.answer().text(), "all of it");
}

#[test]
fn an_answer_may_come_before_the_end_of_the_request() {
    let upstream = Upstream::scripted(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nearly")?;
        std::io::copy(&mut exchange.stream.try_clone()?, &mut std::io::sink())?;
        Ok(Then::Close)
    });
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    connection.send(head("POST", "/", &[("Content-Length", "1000000")], 0));
    connection.send("the beginning");
    assert_eq!(connection.answer().text(), "early");
}

#[test]
fn trailers_of_a_chunked_response_do_not_disturb_it() {
    let upstream = Upstream::scripted(|exchange| {
        exchange.write(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n4\r\nbody\r\n0\r\nX-Sum: 42\r\n\r\n",
        )?;
        Ok(Then::Keep)
    });
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    for _ in 0..2 {
        let response = connection.request("GET", "/", &[("TE", "trailers")], b"");
        assert_eq!((response.status, response.text().as_str()), (200, "body"));
    }
}

#[test]
fn trailers_of_a_chunked_request_do_not_disturb_it() {
    let upstream = Upstream::echo();
    let gateway = before(&upstream);
    let mut connection = gateway.connect();
    for _ in 0..2 {
        connection.send(head("POST", "/", &[("Transfer-Encoding", "chunked")], 0));
        connection.send("4\r\nbody\r\n0\r\nX-Sum: 42\r\n\r\n");
        assert_eq!(connection.answer().status, 200);
    }
    assert_eq!(upstream.bodies(), [b"body", b"body"]);
}
