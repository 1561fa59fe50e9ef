"""What a token bucket costs Redis itself: memory, and time per call of the scripts."""

import itertools
import random
import time
import typing

from measure import machine, report
from measure.load import in_rounds
from measure.processes import SETUPS
from measure.redis import command, start_redis
from measure.spend import BURST, PER_MINUTE, load_spend, spend_call

CLIENTS = 10_000
# of every workload, prepared once and sent again and again
PAYLOADS = 100
SETS_PER_PAYLOAD = 160


class Workload(typing.NamedTuple):
    """Calls of one kind, many to a payload; `sets` are the requests that a call decides."""

    name: str
    sets: int
    buckets: int
    payloads: list


class Cost(typing.NamedTuple):
    """Of one round, in microseconds."""

    script_us_per_call: float
    cpu_us_per_call: float
    script_us_per_set: float
    cpu_us_per_set: float


def plain_call(sha, client):
    return command("EVALSHA", sha, 1, f"rl:per-client:c:load-{client:05d}", BURST, PER_MINUTE / 60, 1)


def compare(stage, options):
    redis = start_redis(stage, "buckets-redis", options)
    with redis.connect() as connection:
        workloads = prepare(connection)
        results = in_rounds(
            workloads,
            options,
            "buckets",
            lambda group: [run(redis, connection, each, options.seconds) for each in group],
        )
    print_results(results, workloads)
    report.print_bytes("memory per bucket, Tidegate", redis, "tg:t:*")
    report.print_bytes("memory per bucket, plain hash", redis, "rl:*")


def prepare(connection):
    spend = load_spend(connection)
    plain = connection.call("SCRIPT", "LOAD", (SETUPS / "token_bucket.lua").read_text())
    choose = random.Random(1)

    def client():
        return choose.randrange(CLIENTS)

    def keys(buckets):
        number = client()
        # as the gateway writes them; what follows tg: has at most 40 bytes
        policies = ["per-client:c", "per-client-route:c"][:buckets]
        return [f"tg:t:{policy}:load-{number:05d}" for policy in policies]

    def payloads(sets, call):
        calls = SETS_PER_PAYLOAD // sets
        return [b"".join(call() for _ in range(calls)) for _ in range(PAYLOADS)]

    workloads = [Workload("plain hash", 1, 1, payloads(1, lambda: plain_call(plain, client())))]
    for sets, buckets in [(1, 1), (1, 2), (32, 1), (32, 2)]:
        name = f"spend {sets}x{buckets}"

        def call(sets=sets, buckets=buckets):
            return spend_call(spend, [keys(buckets) for _ in range(sets)])

        workloads.append(Workload(name, sets, buckets, payloads(sets, call)))
    return workloads


def run(redis, connection, workload, seconds):
    calls, spent_us = redis.script_calls()
    cpu = machine.cpu_seconds(redis.pid)
    until = time.monotonic() + seconds
    for payload in itertools.cycle(workload.payloads):
        connection.run(payload)
        if time.monotonic() >= until:
            break
    cpu = machine.cpu_seconds(redis.pid) - cpu
    calls_after, spent_us_after = redis.script_calls()
    calls = calls_after - calls
    script_us, cpu_us = (spent_us_after - spent_us) / calls, cpu * 1e6 / calls
    return Cost(script_us, cpu_us, script_us / workload.sets, cpu_us / workload.sets)


def print_results(results, workloads):
    report.row("us, medians", results)
    middle = [report.medians(rounds) for rounds in results.values()]
    labels = {
        "script_us_per_call": "usec_per_call",
        "cpu_us_per_call": "CPU per call",
        "script_us_per_set": "script time per set",
        "cpu_us_per_set": "CPU per set",
    }
    for field, label in labels.items():
        report.row(label, [f"{getattr(figure, field):.2f}" for figure in middle])
    print("\nspend AxB: lua/spend.lua, A sets of B token buckets a call; plain: setups/token_bucket.lua")
    plain = workloads[0].name
    for workload in workloads[1:]:
        for field, of in [("script_us_per_set", "script time"), ("cpu_us_per_set", "CPU")]:
            ours = [getattr(each, field) / workload.buckets for each in results[workload.name]]
            theirs = [getattr(each, field) for each in results[plain]]
            text = report.ratios(ours, theirs)
            print(f"ratio {workload.name}/{plain} per bucket, {of}: {text}", flush=True)
