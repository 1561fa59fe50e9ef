"""How long requests take at a fixed rate, and how long Redis alone takes at the same rate."""

import json
import statistics
import typing

from measure import report
from measure.load import in_rounds, read_calls, warm_up
from measure.processes import finish, own_binary
from measure.redis import command, start_redis
from measure.spend import load_spend, spend_call
from measure.subjects import BARE, BARE_ASKING, KEY_HEADER, KEYS, LEASED, STRICT

WARM_UP_SECONDS = 1
CONNECTIONS = 16
# what a round trip costs: a proxy that does nothing else, and one that does all but this
PAIRS = (
    (LEASED, BARE),
    (STRICT, BARE),
    (BARE_ASKING, BARE),
    (STRICT, LEASED),
    (STRICT, BARE_ASKING),
)


class Target(typing.NamedTuple):
    """Where to send which bytes, and how the reply begins."""

    name: str
    address: str
    payload: bytes
    expect: str


class Latency(typing.NamedTuple):
    """Since requests were due, in microseconds; `late`: until, `since_sent`: from when they were sent."""

    p50_us: float
    p99_us: float
    max_us: float
    late_p50_us: float
    late_p99_us: float
    since_sent_p50_us: float


def measure(load, subjects, options, label):
    """All rounds of everything, by name; a subject's script calls are printed."""
    stage = load.stage
    redis = start_redis(stage, "alone-redis", options)
    with redis.connect() as connection:
        spend = spend_call(load_spend(connection), [KEYS])
    alone = [
        Target("Redis PING", redis.address, command("PING"), "+PONG"),
        Target("Redis EVALSHA", redis.address, spend, "$"),
    ]
    warm_up(load, subjects, label)
    servers = [target_of(subject, load.clients) for subject in subjects]
    before = {subject.name: read_calls(subject) for subject in subjects}
    results = in_rounds(
        [*servers, *alone],
        options,
        label,
        lambda group: run(stage, group, options),
    )
    requests = options.rounds * options.rate * (WARM_UP_SECONDS + options.seconds)
    for subject in subjects:
        if subject.redis:
            calls, _, from_leases, uncounted = (
                (after - first) / requests
                for first, after in zip(before[subject.name], read_calls(subject), strict=True)
            )
            print(
                f"{subject.name}: {calls:.3f} script calls per request, {from_leases:.1%} from "
                f"leases, {uncounted:.2%} without Redis"
            )
    return results


def target_of(subject, clients):
    key = f"{KEY_HEADER}: {clients.key(0)}\r\n" if subject.sends_key else ""
    request = f"GET / HTTP/1.1\r\nHost: {subject.address}\r\n{key}\r\n"
    return Target(subject.name, subject.address, request.encode(), f"HTTP/1.1 {subject.status}")


def run(stage, targets, options):
    tools = []
    for target in targets:
        payload = stage.folder / f"{target.name}.payload"
        payload.write_bytes(target.payload)
        words = [own_binary(options, "paced"), "--to", target.address, "--payload", payload]
        words += ["--expect", target.expect, "--rate", options.rate, "--connections", CONNECTIONS]
        words += ["--warm-up", WARM_UP_SECONDS, "--seconds", options.seconds]
        tools.append(stage.start_tool(words))
    outputs = [
        finish(tool, f"paced against {target.name}")
        for tool, target in zip(tools, targets, strict=True)
    ]
    figures = [json.loads(output.splitlines()[-1]) for output in outputs]
    return [Latency(*(figure[field] for field in Latency._fields)) for figure in figures]


def print_results(results):
    labels = {
        "p50_us": "p50",
        "p99_us": "p99",
        "max_us": "longest",
        "late_p50_us": "sent late by, p50",
        "late_p99_us": "sent late by, p99",
        "since_sent_p50_us": "since sent, p50",
    }
    report.row("us since due, medians", results)
    middle = [report.medians(rounds) for rounds in results.values()]
    for field, label in labels.items():
        report.row(label, [f"{getattr(figure, field):,.0f}" for figure in middle])
    print(
        "\nEVALSHA is lua/spend.lua with two buckets: sent by the client itself, or by the bare proxy "
        "before it passes a request on"
    )
    for name, base in PAIRS:
        added = [
            f"{label} {added_us(results[name], results[base], field)}"
            for field, label in [("p50_us", "p50"), ("p99_us", "p99")]
        ]
        print(f"added by {name} over {base}: {', '.join(added)}", flush=True)


def added_us(ours, theirs, field):
    ours, theirs = ([getattr(each, field) for each in rounds] for rounds in (ours, theirs))
    each = statistics.median(one - other for one, other in zip(ours, theirs, strict=True))
    of_medians = statistics.median(ours) - statistics.median(theirs)
    of_quartiles = report.lower_quartile(ours) - report.lower_quartile(theirs)
    return (
        f"{each:+,.0f} us median of the rounds "
        f"({of_medians:+,.0f} of the medians, {of_quartiles:+,.0f} of the lower quartiles)"
    )
