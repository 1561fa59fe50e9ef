//! A Redis server of a test: no port, no file left behind, ended with the test.

use redis::{Client, Connection};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(super) struct Server {
    process: Child,
    directory: PathBuf,
}

impl Server {
    pub(super) fn start() -> Self {
        let name = format!("tidegate-redis-{:016x}", fastrand::u64(..));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir(&directory).unwrap();
        let process = Command::new("redis-server")
            .args(["--port", "0", "--unixsocket", "socket", "--dir"])
            .arg(&directory)
            .args(["--save", "", "--appendonly", "no", "--daemonize", "no"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Server { process, directory }
    }

    pub(super) fn connect(&self) -> Connection {
        let socket = self.directory.join("socket");
        let client = Client::open(format!("redis+unix://{}", socket.display())).unwrap();
        for _ in 0..1_000 {
            if let Ok(connection) = client.get_connection() {
                return connection;
            }
            // another process starts in its own time
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("redis-server does not answer on {}", socket.display());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
