"""What is measured: how each server is set up, started, and found to do what it is named after."""

import functools
import hashlib
import pathlib
import re
import secrets
import shutil
import subprocess
import time
import typing

from measure.machine import Failure, free_ports
from measure.processes import (
    SETUPS,
    START_TIMEOUT_SECONDS,
    get,
    own_binary,
    tidegate_binary,
)
from measure.redis import Redis, start_redis
from measure.spend import BURST, PER_MINUTE, load_spend, spend_call

BARE, BARE_TWICE, BARE_PINNED = "bare", "bare again", "bare, no work stealing"
BARE_ASKING = "bare + EVALSHA"
ADMITTED, REFUSED = "tidegate", "refused"
STRICT, LEASED, REFUSED_SHARED = "strict", "leased", "refused-shared"
NGINX = "nginx+lua"

KEY_HEADER = "X-API-Key"
RATE_HEADER = "X-RateLimit-Limit"

# More than this machine can send. What a lease may hold is a part of what comes back.
FAST = "count: 1000000, period: 1s"
# the same by its burst, in buckets that stay
SLOW = f"count: {PER_MINUTE}, period: 60s, burst: {BURST}"
NONE = "count: 1, period: 1h"
# of the two buckets of a request, as Redis has them behind a gateway set up by setups/tidegate.yaml
KEYS = ["tg:t:per-client:c:load-00000", "tg:t:per-client-and-route:c:load-00000:r:origin"]

# The default deadline, 25 ms, is for production. On two cores that the load saturates it would
# be missed now and then, and requests that are to be counted in Redis would not be.
STORE = '{{ redis: {{ url: "{url}", timeout: 1s }} }}'

NGINX_PACKAGES = "nginx-light libnginx-mod-http-lua lua-nginx-redis"
NGINX_FILES = (
    "/usr/lib/nginx/modules/ndk_http_module.so",
    "/usr/lib/nginx/modules/ngx_http_lua_module.so",
    "/usr/share/lua/5.1/nginx/redis.lua",
)


class Gateway(typing.NamedTuple):
    """How a Tidegate is set up."""

    shared: bool
    consistency: str
    quota: str
    # of the second policy, which refuses nobody
    ample: str
    status: int


GATEWAYS = {
    ADMITTED: Gateway(False, "strict", FAST, FAST, 200),
    REFUSED: Gateway(False, "strict", NONE, FAST, 429),
    STRICT: Gateway(True, "strict", SLOW, SLOW, 200),
    LEASED: Gateway(True, "leased", FAST, FAST, 200),
    REFUSED_SHARED: Gateway(True, "strict", NONE, SLOW, 429),
}


class Clients:
    """The API keys of this run: one, or many that differ in their last digits."""

    def __init__(self, count):
        self.count = count
        self.prefix = secrets.token_hex(16)

    def key(self, number):
        return f"{self.prefix}{number:05d}"

    def config(self):
        """`clients` of Tidegate's configuration."""
        lines = []
        for number in range(self.count):
            digest = hashlib.sha256(self.key(number).encode()).hexdigest()
            lines.append(f"  load-{number:05d}: {{ tier: load, api_keys: [{{ sha256: {digest} }}] }}")
        return "\n".join(lines) + "\n"


class Subject(typing.NamedTuple):
    """A running server under load, how to address it, and what else it needs."""

    name: str
    process: subprocess.Popen
    url: str
    status: int
    sends_key: bool = True
    redis: Redis | None = None
    admin_url: str | None = None

    @property
    def address(self):
        return self.url.removeprefix("http://").rstrip("/")

    @property
    def pid(self):
        return self.process.pid

    @property
    def pids(self):
        return [self.pid, *([self.redis.pid] if self.redis else [])]

    def script_calls(self):
        return self.redis.script_calls()[0] if self.redis else 0

    def metric(self, name):
        """A counter of the gateway's; 0 where it has none."""
        if self.admin_url is None:
            return 0
        _, _, body = get(f"{self.admin_url}metrics")
        found = re.search(rf"^{name} ([\d.e+]+)$", body.decode(), re.MULTILINE)
        if found is None:
            raise Failure(f"{self.name} has no metric {name}")
        return float(found[1])


def missing(name):
    """What to install for a subject that cannot be started here; None if it can."""
    there = all(pathlib.Path(file).exists() for file in NGINX_FILES) and nginx_binary()
    if name != NGINX or there:
        return None
    return f"apt-get install --no-install-recommends {NGINX_PACKAGES}"


def nginx_binary():
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin")


def start_origin(stage, options):
    [port] = free_ports(1)
    process = stage.start("origin", [own_binary(options, "origin"), "--listen", f"127.0.0.1:{port}"])
    stage.wait_for_answer(200, process, "origin", f"http://127.0.0.1:{port}/", {})
    return process.pid, port


def start_subject(name, stage, origin_port, clients, options):
    if name in (BARE, BARE_TWICE, BARE_PINNED, BARE_ASKING):
        return start_bare(name, stage, origin_port, options)
    if name == NGINX:
        return start_nginx(stage, origin_port, clients, options)
    return start_tidegate(name, stage, origin_port, clients, options)


def start_bare(name, stage, origin_port, options):
    [port] = free_ports(1)
    command = [own_binary(options, "bare-proxy"), "--listen", f"127.0.0.1:{port}"]
    command += ["--upstream", f"127.0.0.1:{origin_port}", "--threads", options.threads]
    if name == BARE_PINNED:
        command.append("--no-work-stealing")
    redis = start_redis(stage, f"{name}-redis", options) if name == BARE_ASKING else None
    if redis:
        call = stage.folder / f"{name}.call"
        with redis.connect() as connection:
            call.write_bytes(spend_call(load_spend(connection), [KEYS]))
        command += ["--redis", redis.address, "--call", call]
    process = stage.start(name, command)
    subject = Subject(name, process, f"http://127.0.0.1:{port}/", 200, False, redis)
    stage.wait_for_answer(200, process, name, subject.url, {})
    return subject


def start_tidegate(name, stage, origin_port, clients, options):
    setup = GATEWAYS[name]
    if setup.consistency == "leased" and clients.count > 1:
        # nobody among so many is hot: as strict, so that the two can be compared
        setup = setup._replace(quota=SLOW, ample=SLOW)
    redis = start_redis(stage, f"{name}-redis", options) if setup.shared else None
    port, admin_port = free_ports(2)
    config = stage.folder / f"{name}.yaml"
    template = (SETUPS / "tidegate.yaml").read_text()
    text = template.format(
        threads=options.threads,
        port=port,
        admin_port=admin_port,
        store=STORE.format(url=redis.url) if redis else "{}",
        origin_port=origin_port,
        quota=setup.quota,
        ample=setup.ample,
        consistency=setup.consistency,
    )
    config.write_text(text + clients.config())
    process = stage.start(name, [tidegate_binary(options), "run", "-c", config])
    url, admin_url = f"http://127.0.0.1:{port}/", f"http://127.0.0.1:{admin_port}/"
    subject = Subject(name, process, url, setup.status, True, redis, admin_url)
    if redis:
        wait_for_store(stage, process, subject)
    wait = functools.partial(stage.wait_for_answer, process=process, name=name, url=url)
    wait(401, headers={KEY_HEADER: "nobody's"})
    check_limited(subject, functools.partial(wait, 200), clients)
    # where the quota is one request, that was it
    wait(setup.status, headers={KEY_HEADER: clients.key(0)})
    return subject


def wait_for_store(stage, process, subject):
    """Until the gateway counts in Redis: before, its first answers would come from itself."""
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if subject.metric("tidegate_store_up") == 1:
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise stage.failure(process, subject.name, "does not reach its Redis")


def check_limited(subject, get_admitted, clients):
    """The first and the last client are let in, counted in Redis, and told what is left."""
    for number in {0, clients.count - 1}:
        calls = subject.script_calls()
        headers = get_admitted(headers={KEY_HEADER: clients.key(number)})
        if RATE_HEADER not in headers:
            raise Failure(f"{subject.name} answers without {RATE_HEADER}: {headers.items()}")
        if subject.redis and subject.script_calls() == calls:
            raise Failure(f"{subject.name} admitted a request without asking its Redis")


def start_nginx(stage, origin_port, clients, options):
    redis = start_redis(stage, "nginx-redis", options)
    [port] = free_ports(1)
    config = stage.folder / "nginx.conf"
    where = f'"unix:{redis.path}"' if redis.by_socket else f'"127.0.0.1", {redis.port}'
    text = (SETUPS / "nginx.conf").read_text().format(
        master="off" if options.threads == 1 else "on",
        threads=options.threads,
        port=port,
        origin_port=origin_port,
        script=SETUPS / "token_bucket.lua",
        redis_address=where,
        capacity=BURST,
        per_second=PER_MINUTE / 60,
    )
    config.write_text(text)
    command = [nginx_binary(), "-p", f"{stage.folder}/", "-c", config, "-e", "stderr"]
    process = stage.start(NGINX, command)
    subject = Subject(NGINX, process, f"http://127.0.0.1:{port}/", 200, True, redis)
    wait = functools.partial(stage.wait_for_answer, process=process, name=NGINX, url=subject.url)
    wait(401, headers={})
    check_limited(subject, functools.partial(wait, 200), clients)
    return subject
