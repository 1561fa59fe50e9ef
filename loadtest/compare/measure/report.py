"""Tables and ratios."""

import datetime
import os
import platform
import shutil
import statistics
import subprocess

from measure.load import WARM_UP_SECONDS
from measure.machine import cpu_model
from measure.processes import BODY_BYTES
from measure.subjects import NGINX, nginx_binary

LABEL_WIDTH, WIDTH = 22, 16


def print_conditions(options, wrk):
    mode = "all subjects at the same time" if options.together else "in turn, every second one backwards"
    by = "a Unix socket" if options.redis == "unix" else "TCP on loopback"
    lines = {
        "date": datetime.date.today().isoformat(),
        "kernel": f"{platform.system()} {platform.release()}",
        "cpu": f"{cpu_model()}, {os.cpu_count()} cores for load tools, origin and subjects",
        "load": f"{first_words([wrk, '-v'])}, 1 thread, {options.connections} connections kept alive",
        "build": build_of(options),
        "subjects": f"{options.threads} worker thread(s) each, {BODY_BYTES} bytes a response",
        "redis": f"{redis_version()}, one for each subject that needs one, by {by}, no persistence",
        "rounds": f"{options.rounds} of {options.seconds} s, {mode}, warm-up {WARM_UP_SECONDS} s, after "
        f"each of {options.starts} starts",
        "cpu counted": "user + system of the subject's processes and of its Redis",
    }
    if nginx_binary():
        lines["nginx"] = first_words([nginx_binary(), "-v"], 3)
    for name, value in lines.items():
        print(f"{name:<12} {value}", flush=True)


def build_of(options):
    if options.guided:
        return "release, Tidegate and the bare proxy guided by a profile of load"
    return f"release, {options.tidegate}" if options.tidegate else "release"


def redis_version():
    return first_words(["redis-server", "--version"], 3) if shutil.which("redis-server") else "none"


def first_words(command, count=2):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return " ".join((done.stdout + done.stderr).split()[:count])


def heading(text):
    print(f"\n== {text}\n", flush=True)


def row(label, cells):
    print(f"{label:<{LABEL_WIDTH}}" + "".join(f" {cell:>{WIDTH - 1}}" for cell in cells), flush=True)


def medians(rounds):
    """The median of every figure of some Rounds."""
    columns = zip(*rounds, strict=True)
    return type(rounds[0])(*(statistics.median(column) for column in columns))


def print_rounds(results):
    """CPU of each round, and the medians of everything else."""
    row("CPU us per request", results)
    for number, cells in enumerate(zip(*results.values(), strict=True), 1):
        row(f"round {number}", [f"{cell.cpu_us_per_request:.2f}" for cell in cells])
    of_all = [statistics.median(r.cpu_us_per_request for r in rounds) for rounds in results.values()]
    row("median", [f"{median:.2f}" for median in of_all])
    middle = [medians(rounds) for rounds in results.values()]
    figures = {
        "  of it, proxy": ("proxy_us_per_request", ".2f"),
        "  of it, Redis": ("redis_us_per_request", ".2f"),
        "requests/s": ("requests_per_second", ",.0f"),
        "script calls/request": ("script_calls_per_request", ".4f"),
        "script calls/s": ("script_calls_per_second", ",.1f"),
        "store_calls_total/s": ("store_calls_per_second", ",.1f"),
        "% from leases": ("from_leases_percent", ".1f"),
        "cores of others": ("foreign_cores", ".2f"),
    }
    for label, (field, form) in figures.items():
        values = [getattr(figure, field) for figure in middle]
        if any(values):
            row(label, [format(value, form) for value in values])
    print()
    for name, rounds in results.items():
        most = max(each.uncounted_percent for each in rounds)
        if most:
            print(f"NOTE: {name} decided up to {most:.3f} % of a round without Redis (outage mode)\n")


def print_ratios(results, pairs, where=""):
    for subject, peer in pairs:
        if subject in results and peer in results:
            ours = [each.cpu_us_per_request for each in results[subject]]
            theirs = [each.cpu_us_per_request for each in results[peer]]
            print(f"{where}ratio {subject}/{peer}: {ratios(ours, theirs)}", flush=True)


def ratios(ours, theirs):
    """The three ways to put two columns into one figure."""
    each = [one / other for one, other in zip(ours, theirs, strict=True)]
    of_medians = statistics.median(ours) / statistics.median(theirs)
    of_quartiles = lower_quartile(ours) / lower_quartile(theirs)
    return (
        f"{statistics.median(each):.3f} median of the rounds ({min(each):.3f} to {max(each):.3f}), "
        f"{of_medians:.3f} of the medians, {of_quartiles:.3f} of the lower quartiles"
    )


def lower_quartile(values):
    if len(values) == 1:
        return values[0]
    return statistics.quantiles(values, n=4, method="inclusive")[0]


def print_bucket_bytes(subject):
    """What a bucket takes in the subject's Redis, if it has one."""
    if subject.redis:
        pattern = "rl:*" if subject.name == NGINX else "tg:[t#]*"
        print_bytes(f"memory per bucket, {subject.name}", subject.redis, pattern)


def print_bytes(label, redis, pattern):
    with redis.connect() as connection:
        sizes, longest = connection.bucket_bytes(pattern)
    if not sizes:
        print(f"{label}: no bucket is left", flush=True)
        return
    print(
        f"{label}: {statistics.median(sizes):.0f} bytes in the median, at most {max(sizes)} "
        f"(MEMORY USAGE of {len(sizes)} keys of up to {longest} bytes)",
        flush=True,
    )


def print_curve_row(connections, results, with_heading):
    """One line per number of connections: the medians of each subject."""
    cells = {}
    for name, rounds in results.items():
        figure = medians(rounds)
        cpu = statistics.median(each.cpu_us_per_request for each in rounds)
        cells[f"{name}, CPU us"] = f"{cpu:.2f}"
        cells[f"{name} req/s"] = f"{figure.requests_per_second:,.0f}"
        if figure.script_calls_per_request:
            cells["of it, Redis"] = f"{figure.redis_us_per_request:.2f}"
            cells["calls/request"] = f"{figure.script_calls_per_request:.4f}"
            cells["calls/s"] = f"{figure.script_calls_per_second:,.0f}"
            cells["% without Redis"] = f"{figure.uncounted_percent:.3f}"
    if with_heading:
        row("connections", cells)
    row(f"{connections}", cells.values())
