"""Binaries that are laid out by what they do under load.

Built with counters inside, loaded, built once more by what was counted (profile-guided optimisation
by the compiler); then counters are put into that binary, it is loaded too, and its code is ordered by
what was counted (BOLT, https://doi.org/10.1109/CGO.2019.8661201). Always under the same load, so what
is guided compares with what is guided.
"""

import argparse
import contextlib
import hashlib
import os
import pathlib
import re
import secrets
import shutil
import subprocess
import tempfile

from measure import machine, processes, subjects
from measure.load import Load
from measure.processes import COMPARE, ROOT, SETUPS, Stage, finish
from measure.redis import start_redis

SECONDS = 4
CONNECTIONS = 64
MANY_CLIENTS = 1_000
OLDEST_LLVM, NEWEST_LLVM = 19, 40
FLAGS = [
    # BOLT moves code, so it has to know what points to it
    "-Clink-arg=-Wl,--emit-relocs",
    # the other mangling makes names of thousands of letters, and what BOLT counts with gives up at such a one
    "-Csymbol-mangling-version=v0",
]
ORDER = [
    "-reorder-blocks=ext-tsp",
    "-reorder-functions=cdsort",
    "-split-functions",
    "-split-all-cold",
    "-split-eh",
    # backtraces still name files and lines
    "-update-debug-sections",
]
PACKAGES = {"wrk": "wrk", "h2load": "nghttp2-client", "redis-server": "redis-server"}


# --- build ---------------------------------------------------------------------------


def build(name, build_it=True):
    """The path of the guided binary: `tidegate`, or `bare-proxy`."""
    crate = ROOT if name == "tidegate" else COMPARE / "bare"
    target = crate / os.environ.get("CARGO_TARGET_DIR", "target")
    guided, work = target / "guided" / name, target / "guided" / f"{name}.build"
    if not build_it:
        return processes.existing(guided)
    merge = llvm_tool("llvm-profdata", "llvm", toolchain_folder(crate))
    bolt, merge_counts = llvm_tool("llvm-bolt", "bolt"), llvm_tool("merge-fdata", "bolt")
    tools = find_tools()
    guided.unlink(missing_ok=True)
    counting = cargo_build(crate, name, work / "counting", "-Cprofile-generate")
    profile = profile_of(name, counting, work / "guided", merge, tools)
    built = cargo_build(crate, name, work / "guided", f"-Cprofile-use={profile}")
    order(name, built, guided, work, (bolt, merge_counts), tools)
    return guided


def profile_of(name, counting, target, merge, tools):
    """What a binary with counters has counted under load, as a file in an emptied `target`."""
    with tempfile.TemporaryDirectory(prefix="guided-") as folder:
        folder = pathlib.Path(folder)
        pattern = folder / "%p.profraw"
        with environment("LLVM_PROFILE_FILE", str(pattern)):
            train(name, counting, pattern, tools)
        profile = folder / "profile"
        run([merge, "merge", "--output", profile, *folder.glob("*.profraw")])
        # cargo does not look into a profile: another one has another name, and objects of its own
        digest = hashlib.sha256(profile.read_bytes()).hexdigest()[:16]
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        return shutil.copy2(profile, target / f"{digest}.profdata")


def order(name, built, ordered, work, llvm, tools):
    """Puts the code of a binary in the order in which it runs under load, as another binary."""
    bolt, merge_counts = llvm
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="guided-")))
        # a folder for temporary files may be small, and may not let programs run; paths of sockets have to be short
        binaries = stack.enter_context(tempfile.TemporaryDirectory(prefix="ordered-", dir=work))
        counting, new = pathlib.Path(binaries, name), pathlib.Path(binaries, "ordered")
        counts, merged = folder / "counts", folder / "merged"
        files = f"--instrumentation-file={counts}"
        quietly([bolt, built, "-instrument", files, "--instrumentation-file-append-pid", "-o", counting])
        train(name, counting, pathlib.Path(f"{counts}.%p.fdata"), tools)
        merged.write_text(quietly([merge_counts, *folder.glob("counts.*.fdata")]))
        quietly([bolt, built, f"-data={merged}", *ORDER, "-o", new])
        answers(name, new, folder)
        new.replace(ordered)


def cargo_build(crate, name, target, flag):
    """With flags for the binary alone, not for what runs while it is built: hence the --target."""
    triple = host(crate)
    encoded = os.environ.get("CARGO_ENCODED_RUSTFLAGS")
    flags = encoded.split("\x1f") if encoded else os.environ.get("RUSTFLAGS", "").split()
    command = ["cargo", "build", "--release", "--locked", "--bin", name]
    command += ["--target", triple, "--target-dir", target]
    env = os.environ | {"CARGO_ENCODED_RUSTFLAGS": "\x1f".join([*flags, *FLAGS, flag])}
    run(command, cwd=crate, env=env)
    return target / triple / "release" / name


def host(crate):
    return re.search(r"^host: (.+)$", rustc(crate, "-vV"), re.MULTILINE)[1]


def toolchain_folder(crate):
    root = pathlib.Path(rustc(crate, "--print", "sysroot").strip())
    return root / "lib" / "rustlib" / host(crate) / "bin"


def llvm_tool(name, package, own_folder=None):
    """That of the toolchain, else the newest of the system that reads what the compiler writes."""
    if own_folder is not None and (own_folder / name).is_file():
        return own_folder / name
    for version in range(NEWEST_LLVM, OLDEST_LLVM - 1, -1):
        if found := shutil.which(f"{name}-{version}"):
            # llvm-bolt looks for its library beside itself, not beside the link to it
            return pathlib.Path(found).resolve()
    advice = "rustup component add llvm-tools, or " if own_folder is not None else ""
    raise machine.Failure(
        f"{name} is missing: {advice}apt-get install {package}-{OLDEST_LLVM} or newer"
    )


def rustc(crate, *words):
    try:
        done = subprocess.run(["rustc", *words], cwd=crate, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise machine.Failure(f"rustc does not run: {error}") from None
    return done.stdout


def find_tools():
    found = {name: shutil.which(name) for name in PACKAGES}
    if absent := [PACKAGES[name] for name, path in found.items() if path is None]:
        raise machine.Failure(f"missing: apt-get install {' '.join(absent)}")
    return found


def run(command, **options):
    words = [str(word) for word in command]
    if subprocess.run(words, check=False, **options).returncode != 0:
        raise machine.Failure(f"{' '.join(words[:2])} failed, see above")


def quietly(command):
    """What a tool writes; what it warns of is shown only if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(words, check=False, capture_output=True, text=True, errors="replace")
    if done.returncode != 0:
        raise machine.Failure(f"{' '.join(words[:2])} failed:\n{done.stderr[-2000:]}")
    return done.stdout


# --- load ----------------------------------------------------------------------------


def train(name, counting, pattern, tools):
    """Runs what counts under load; each process leaves a file with what it has counted: `pattern` with the
    id of the process in place of `%p`."""
    options = options_for(name, counting)
    for subject, clients in scenarios(name):
        with staged(pattern.parent) as stage:
            origin_pid, origin_port = subjects.start_origin(stage, options)
            started = subjects.start_subject(subject, stage, origin_port, clients, options)
            for connections in (1, CONNECTIONS):
                load = Load(tools["wrk"], stage, origin_pid, clients, connections)
                load.run([started], SECONDS)
            end(stage, started.process, subject, pattern)
    if name == "tidegate":
        with staged(pattern.parent) as stage:
            mix(stage, counting, pattern, tools, options)


def options_for(name, binary):
    options = argparse.Namespace(no_build=False, tidegate=None, bare=None, threads=1, redis="tcp")
    setattr(options, "tidegate" if name == "tidegate" else "bare", str(binary))
    return options


def answers(name, binary, folder):
    """Fails unless it serves a request."""
    options = options_for(name, binary)
    subject, clients = scenarios(name)[0]
    with staged(folder) as stage:
        _, origin_port = subjects.start_origin(stage, options)
        subjects.start_subject(subject, stage, origin_port, clients, options)


@contextlib.contextmanager
def environment(name, value):
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextlib.contextmanager
def staged(folder):
    with contextlib.ExitStack() as stack:
        inner = stack.enter_context(tempfile.TemporaryDirectory(dir=folder))
        yield Stage(stack, pathlib.Path(inner))


def scenarios(name):
    one, many = subjects.Clients(1), subjects.Clients(MANY_CLIENTS)
    if name != "tidegate":
        return [(subjects.BARE, one), (subjects.BARE_ASKING, one)]
    return [
        (subjects.ADMITTED, one),
        (subjects.REFUSED, one),
        (subjects.LEASED, one),
        (subjects.STRICT, one),
        (subjects.STRICT, many),
        (subjects.REFUSED_SHARED, one),
    ]


def end(stage, process, name, pattern):
    """What was killed instead of having ended has written nothing, or not all."""
    processes.stop(process)
    counted = pathlib.Path(str(pattern).replace("%p", str(process.pid)))
    if process.returncode != 0 or not counted.is_file() or counted.stat().st_size == 0:
        status = f"exit status {process.returncode}"
        raise stage.failed(name, f"has not written all it has counted ({status}, {counted.name})")


def mix(stage, counting, pattern, tools, options):
    """Tokens, bodies, HTTP/2, every algorithm."""
    clients = subjects.Clients(1)
    _, origin_port = subjects.start_origin(stage, options)
    redis = start_redis(stage, "mix-redis", options)
    port, admin_port = machine.free_ports(2)
    config = stage.folder / "training.yaml"
    text = (SETUPS / "training.yaml").read_text().format(
        port=port,
        admin_port=admin_port,
        origin_port=origin_port,
        store=subjects.STORE.format(url=redis.url),
        secret=secrets.token_hex(32),
    )
    config.write_text(text + clients.config())
    sign = [counting, "token", "-c", config, "--client", "load-00000"]
    token = finish(stage.start_tool(sign), "tidegate token").split()[-1]
    process = stage.start("mix", [counting, "run", "-c", config])
    url = f"http://127.0.0.1:{port}/"
    key = {subjects.KEY_HEADER: clients.key(0)}
    for status, path, headers in [
        (200, "", key),
        (200, "windows", key),
        (200, "queues", {"Authorization": f"Bearer {token}"}),
        (401, "windows", {}),
    ]:
        stage.wait_for_answer(status, process, "mix", f"{url}{path}", headers)
    script = ["-s", SETUPS / "training.lua", url, "--", subjects.KEY_HEADER, clients.key(0), token]
    for connections in (1, CONNECTIONS):
        command = [tools["wrk"], "-t1", f"-c{connections}", f"-d{SECONDS}s", *script]
        finish(stage.start_tool(command), "wrk")
    command = [tools["h2load"], "--clients=8", "--max-concurrent-streams=8", f"--duration={SECONDS}"]
    command += ["--header", f"{subjects.KEY_HEADER}: {clients.key(0)}", url]
    output = finish(stage.start_tool(command), "h2load")
    if not re.search(r"^status codes: [1-9]\d* 2xx, 0 3xx, 0 4xx, 0 5xx", output, re.MULTILINE):
        raise machine.Failure(f"HTTP/2 was not answered 200 throughout:\n{output}")
    end(stage, process, "mix", pattern)
