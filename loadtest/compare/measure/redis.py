"""A Redis of our own: started empty, spoken to over a socket, asked what it has done."""

import re
import shutil
import socket
import time
import typing

from measure.machine import Failure, free_ports
from measure.processes import START_TIMEOUT_SECONDS

TIMEOUT_SECONDS = 10
# what ends the replies of a run
END = "that was all"
END_REPLY = b"$12\r\nthat was all\r\n"


class Redis(typing.NamedTuple):
    """A running server: by TCP on loopback, or by a socket in the file system."""

    pid: int
    port: int
    path: str
    by_socket: bool

    @property
    def url(self):
        return f"unix://{self.path}" if self.by_socket else f"redis://127.0.0.1:{self.port}"

    @property
    def address(self):
        """As tools take it: HOST:PORT or a path."""
        return self.path if self.by_socket else f"127.0.0.1:{self.port}"

    def connect(self):
        return Connection(self)

    def script_calls(self):
        """EVALSHA and EVAL so far: how many, and the microseconds spent in them."""
        with self.connect() as connection:
            stats = connection.command_stats()
        both = [stats.get(name, (0, 0)) for name in ("evalsha", "eval")]
        return tuple(sum(column) for column in zip(*both, strict=True))


def start_redis(stage, name, options):
    """A server without persistence, whose keys die with it."""
    if shutil.which("redis-server") is None:
        raise Failure("redis-server is missing: apt-get install redis-server")
    [port], path = free_ports(1), str(stage.folder / f"{name}.sock")
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--unixsocket", path]
    command += ["--save", "", "--appendonly", "no", "--dir", stage.folder]
    process = stage.start(name, command)
    redis = Redis(process.pid, port, path, options.redis == "unix")
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with redis.connect() as connection:
                connection.call("PING")
                return redis
        except OSError:
            time.sleep(0.05)
    raise stage.failure(process, name, "does not answer")


class Connection:
    """Commands and their replies; errors of Redis become Failures."""

    def __init__(self, redis):
        if redis.by_socket:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(TIMEOUT_SECONDS)
            self.socket.connect(redis.path)
        else:
            self.socket = socket.create_connection(("127.0.0.1", redis.port), TIMEOUT_SECONDS)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.replies = self.socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.replies.close()
        self.socket.close()

    def call(self, *words):
        self.socket.sendall(command(*words))
        return self.read_reply()

    def run(self, payload):
        """Sends commands at once and drops their replies, none of which may be an error."""
        self.socket.sendall(payload + command("ECHO", END))
        received = bytearray()
        while not received.endswith(END_REPLY):
            part = self.socket.recv(1 << 20)
            if not part:
                raise Failure("Redis has closed the connection")
            received += part
        error = re.search(rb"^-.*", received, re.MULTILINE)
        if error:
            raise Failure(f"Redis says: {error[0].decode()}")

    def read_reply(self):
        line = self.replies.readline()
        if not line:
            raise Failure("Redis has closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise Failure(f"Redis says: {rest.decode()}")
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self.replies.read(int(rest) + 2)[:-2]
        if kind == b"*":
            return [self.read_reply() for _ in range(int(rest))]
        return rest

    def command_stats(self):
        """Calls and microseconds by command, as INFO commandstats has them."""
        stats = {}
        for line in self.call("INFO", "commandstats").decode().splitlines():
            if line.startswith("cmdstat_"):
                name, _, figures = line.removeprefix("cmdstat_").partition(":")
                fields = dict(figure.split("=") for figure in figures.split(","))
                stats[name] = int(fields["calls"]), int(fields["usec"])
        return stats

    def bucket_bytes(self, pattern, at_most=2000):
        """MEMORY USAGE of the buckets whose keys match, and how long the longest key is."""
        sizes, longest, cursor = [], 0, b"0"
        while len(sizes) < at_most:
            cursor, keys = self.call("SCAN", cursor, "MATCH", pattern, "COUNT", 500)
            for key in keys:
                size = self.call("MEMORY", "USAGE", key, "SAMPLES", 0)
                if size is not None:  # it may have expired meanwhile
                    sizes.append(size)
                    longest = max(longest, len(key))
            if cursor == b"0":
                break
        return sizes, longest


def command(*words):
    """A command in the protocol of Redis."""
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    encoded = [b"*%d\r\n" % len(parts)]
    encoded += [b"$%d\r\n%b\r\n" % (len(part), part) for part in parts]
    return b"".join(encoded)
