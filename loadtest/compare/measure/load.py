"""Load by wrk, one subject after the other or all at once, and what it cost them."""

import re
import sys
import time
import typing

from measure import machine
from measure.machine import Failure
from measure.processes import SETUPS, Stage, finish
from measure.subjects import KEY_HEADER, LEASED, Clients

WARM_UP_SECONDS = 2
# requests that the gateway decided by itself because Redis did not in time
UNCOUNTED = "tidegate_store_outage_total"
FROM_LEASES = "tidegate_store_lease_served_total"
# a gateway leases only once it has been there for some seconds
LEASE_TIMEOUT_SECONDS = 15
MOSTLY_PERCENT = 90


class Round(typing.NamedTuple):
    """What one run of wrk against one subject gave."""

    proxy_us_per_request: float
    redis_us_per_request: float
    requests_per_second: float
    script_calls_per_request: float
    script_calls_per_second: float
    store_calls_per_second: float
    from_leases_percent: float
    uncounted_percent: float
    foreign_cores: float

    @property
    def cpu_us_per_request(self):
        """Of everything that the subject needs."""
        return self.proxy_us_per_request + self.redis_us_per_request


class Reading(typing.NamedTuple):
    """The counters of a subject at one time."""

    proxy_seconds: float
    redis_seconds: float
    script_calls: float
    store_calls: float
    from_leases: float
    uncounted: float


class Load(typing.NamedTuple):
    """How to load: by what, from whom, over how many connections."""

    wrk: str
    stage: Stage
    origin_pid: int
    clients: Clients
    connections: int

    def command(self, subject, seconds):
        command = [self.wrk, "-t1", f"-c{self.connections}", f"-d{seconds}s"]
        if self.clients.count == 1:
            if subject.sends_key:
                command += ["-H", f"{KEY_HEADER}: {self.clients.key(0)}"]
            return [*command, subject.url]
        command += ["-s", SETUPS / "random_clients.lua", subject.url, "--"]
        header = KEY_HEADER if subject.sends_key else "none"
        return [*command, header, self.clients.prefix, self.clients.count]

    def run(self, subjects, seconds):
        """Loads these subjects at the same time; a Round for each."""
        before = [read_calls(subject) for subject in subjects]
        pids = [self.origin_pid, *(pid for subject in subjects for pid in subject.pids)]
        foreign_before = machine.foreign_cpu_seconds(pids)
        before = [read_cpu(subject, calls) for subject, calls in zip(subjects, before, strict=True)]
        commands = [self.command(subject, seconds) for subject in subjects]
        tools = [self.stage.start_tool(command) for command in commands]
        outputs = [
            finish(tool, f"wrk against {subject.name}")
            for tool, subject in zip(tools, subjects, strict=True)
        ]
        for subject in subjects:
            if subject.process.poll() is not None:
                raise self.stage.failure(subject.process, subject.name, "is gone")
        # the CPU first: reading the other counters costs some
        after = [read_cpu(subject, (0, 0, 0, 0)) for subject in subjects]
        foreign_seconds = machine.foreign_cpu_seconds(pids) - foreign_before
        calls = [read_calls(subject) for subject in subjects]
        return [
            evaluate(subject, output, first, Reading(*cpu[:2], *counters), foreign_seconds)
            for subject, output, first, cpu, counters in zip(
                subjects, outputs, before, after, calls, strict=True
            )
        ]


def read_calls(subject):
    names = ["tidegate_store_calls_total", FROM_LEASES, UNCOUNTED]
    return subject.script_calls(), *map(subject.metric, names)


def read_cpu(subject, calls):
    redis_seconds = machine.cpu_seconds(subject.redis.pid) if subject.redis else 0
    return Reading(machine.cpu_seconds(subject.pid), redis_seconds, *calls)


def evaluate(subject, output, before, after, foreign_seconds):
    requests, seconds, unlike_2xx = read_wrk(output)
    check_answers(subject, requests, unlike_2xx, output)
    spent = Reading(*(last - first for first, last in zip(before, after, strict=True)))
    return Round(
        proxy_us_per_request=spent.proxy_seconds * 1e6 / requests,
        redis_us_per_request=spent.redis_seconds * 1e6 / requests,
        requests_per_second=requests / seconds,
        script_calls_per_request=spent.script_calls / requests,
        script_calls_per_second=spent.script_calls / seconds,
        store_calls_per_second=spent.store_calls / seconds,
        from_leases_percent=spent.from_leases * 100 / requests,
        uncounted_percent=spent.uncounted * 100 / requests,
        foreign_cores=foreign_seconds / seconds,
    )


def read_wrk(output):
    """Requests, the seconds they took, and how many were answered otherwise than 2xx or 3xx."""
    total = re.search(r"(\d+) requests in ([\d.]+)(s|m),", output)
    if total is None or int(total[1]) == 0:
        raise Failure(f"wrk completed no request:\n{output}")
    unlike_2xx = re.search(r"Non-2xx or 3xx responses: (\d+)", output)
    seconds = float(total[2]) * (60 if total[3] == "m" else 1)
    return int(total[1]), seconds, int(unlike_2xx[1]) if unlike_2xx else 0


def check_answers(subject, requests, unlike_2xx, output):
    """A number counts only if every request had the answer it is named after."""
    expected = requests if subject.status == 429 else 0
    if "Socket errors" in output or unlike_2xx != expected:
        raise Failure(f"{subject.name} did not answer {subject.status} throughout:\n{output}")


def in_rounds(subjects, options, label, run):
    """`run` for each subject in turn, every second round backwards, or for all at once.

    `run` takes a list of subjects and gives a result for each. By name, all results.
    """
    results = {subject.name: [] for subject in subjects}
    for number in range(1, options.rounds + 1):
        in_order = subjects if number % 2 else subjects[::-1]
        groups = [in_order] if options.together else [[subject] for subject in in_order]
        for group in groups:
            names = ", ".join(subject.name for subject in group)
            progress(f"{label}: round {number} of {options.rounds}: {names}")
            for subject, result in zip(group, run(group), strict=True):
                results[subject.name].append(result)
    progress("")
    return results


def warm_up(load, subjects, label):
    for subject in subjects:
        progress(f"{label}: warm-up: {subject.name}")
        load.run([subject], WARM_UP_SECONDS)
        if subject.name == LEASED and load.clients.count == 1:
            wait_for_leases(load, subject)


def wait_for_leases(load, subject):
    deadline = time.monotonic() + LEASE_TIMEOUT_SECONDS
    while load.run([subject], 1)[0].from_leases_percent < MOSTLY_PERCENT:
        if time.monotonic() > deadline:
            raise Failure(f"{subject.name} does not serve {MOSTLY_PERCENT} % from leases")


def measure(load, subjects, options, label):
    """Every subject warmed up, then the rounds."""
    warm_up(load, subjects, label)
    return in_rounds(subjects, options, label, lambda group: load.run(group, options.seconds))


def progress(text):
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)
