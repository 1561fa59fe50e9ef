"""Starting what is needed, waiting until it answers, and ending all of it."""

import contextlib
import ctypes
import functools
import http.client
import os
import pathlib
import signal
import subprocess
import sys
import time

from measure.machine import Failure

COMPARE = pathlib.Path(__file__).resolve().parent.parent
ROOT = COMPARE.parent.parent
SETUPS = COMPARE / "setups"
BODY_BYTES = 100
START_TIMEOUT_SECONDS = 30
STOP_TIMEOUT_SECONDS = 5


# --- build ---------------------------------------------------------------------------


@functools.cache
def crate_binaries(crate, build):
    """The folder of a crate's release binaries, built first if `build`."""
    if build:
        command = ["cargo", "build", "--release", "--locked"]
        if subprocess.run(command, cwd=crate, check=False).returncode != 0:
            raise Failure(f"the build in {crate} failed, see above")
    return crate / os.environ.get("CARGO_TARGET_DIR", "target") / "release"


def existing(binary):
    if not binary.is_file():
        raise Failure(f"{binary} is not there: run without --no-build")
    return binary


def own_binary(options, name):
    """The bare proxy, the origin, or the client of fixed rate."""
    if name == "bare-proxy" and options.bare:
        return existing(pathlib.Path(options.bare).resolve())
    return existing(crate_binaries(COMPARE / "bare", not options.no_build) / name)


def tidegate_binary(options):
    if options.tidegate:
        return existing(pathlib.Path(options.tidegate).resolve())
    return existing(crate_binaries(ROOT, not options.no_build) / "tidegate")


# --- start and stop ------------------------------------------------------------------


def end_when_told():
    """A signal ends the script in the usual way, so that all it has started is cleaned up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda received, _: sys.exit(128 + received))


class Stage:
    """A folder and the processes in it; none outlives the `with` block of its `stack`."""

    def __init__(self, stack, folder):
        self.stack = stack
        self.folder = folder

    def start(self, name, command, **popen_options):
        if "stdout" not in popen_options:
            log = self.stack.enter_context(open(self.folder / f"{name}.log", "wb"))
            popen_options.update(stdout=log, stderr=log)
        process = subprocess.Popen(
            [str(word) for word in command],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            preexec_fn=die_with_parent,
            **popen_options,
        )
        self.stack.callback(stop, process)
        return process

    def start_tool(self, command):
        """A tool that writes what it found and ends; `finish` waits for it."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return self.start("tool", command, **pipes)

    def wait_for_answer(self, status, process, name, url, headers):
        """Returns the headers once `url` answers; its first answer has to have `status`."""
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        problem = "is silent"
        while time.monotonic() < deadline and process.poll() is None:
            try:
                answer, received, body = get(url, headers)
            except (OSError, http.client.HTTPException) as error:
                problem = f"does not answer ({error})"
                time.sleep(0.05)
                continue
            if answer == status and (status != 200 or len(body) == BODY_BYTES):
                return received
            problem = f"answers {answer} with {len(body)} bytes, not {status}: {body[:200]!r}"
            break
        raise self.failure(process, name, problem)

    def failure(self, process, name, problem):
        if process.poll() is not None:
            problem = f"ended with exit status {process.returncode}"
        return self.failed(name, problem)

    def failed(self, name, problem):
        log = (self.folder / f"{name}.log").read_text(errors="replace").strip()
        return Failure(f"{name} {problem}. Its output:\n{log[-2000:]}")


def die_with_parent():
    """In the child: end when this script does, even if it is killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def finish(tool, name):
    """What a tool wrote, once it has ended."""
    output, _ = tool.communicate()
    if tool.returncode != 0:
        raise Failure(f"{name} failed:\n{output}")
    return output


def stop(process):
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def get(url, headers=None):
    """Status, headers and body of a GET over a connection of its own."""
    address, _, path = url.removeprefix("http://").partition("/")
    connection = http.client.HTTPConnection(address, timeout=2)
    with contextlib.closing(connection):
        connection.request("GET", f"/{path}", headers=headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
