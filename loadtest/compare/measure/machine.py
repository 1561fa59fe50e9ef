"""The machine: the CPU time of processes and of everything else, free ports, what it is."""

import contextlib
import os
import pathlib
import platform
import resource
import socket

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Failure(Exception):
    """What the person who started the comparison has to know, in one sentence."""


def free_ports(count):
    """Ports that nobody listens on; all are held until the last is found."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for holder in sockets:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in sockets]


def cpu_seconds(pid):
    """User and system time of a process, of all its threads, and of its children.

    Those that have ended are part of its own figures; those that run are looked up.
    """
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        raise Failure(f"process {pid} has ended under load") from None
    # the name in parentheses may hold anything; state is the first field after it
    fields = stat.rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) / TICKS_PER_SECOND
    return own + sum(cpu_seconds(child) for child in children(pid))


def children(pid):
    pids = set()
    for thread in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            pids.update((thread / "children").read_text().split())
    return pids


def foreign_cpu_seconds(our_pids):
    """What the machine has worked, less these processes and every load tool so far."""
    ticks = list(map(int, pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:8]))
    # user, nice, system, idle, waiting, interrupts, soft interrupts; a process is charged
    # with the interrupts that it is interrupted by, so they count here
    all_of_it = (sum(ticks) - ticks[3] - ticks[4]) / TICKS_PER_SECOND
    load_tools = resource.getrusage(resource.RUSAGE_CHILDREN)
    ours = load_tools.ru_utime + load_tools.ru_stime + sum(map(cpu_seconds, our_pids))
    return all_of_it - ours


def cpu_model():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
