"""A served project over time: its start, its memory, idle clients."""

import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from http.client import HTTPConnection
from itertools import pairwise
from pathlib import Path

from measure import compare, report, run
from serving import Server
from speed import HERE, REQUESTS, SECONDS, found, in_turns, prepare, serve_application

IDLE = 1000
POOL = 15  # connections of one worker
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'"


def startup(project: Path) -> None:
    """`import app.main` ÷ an application with the same imports and no more (at most 1.25)."""
    python = str(project / ".venv/bin/python")
    compare(
        "app.main",
        partial(run, [python, "-c", "import app.main"], project),
        "bare",
        partial(run, [python, str(HERE / "bare.py")], project),
        limit=1.25,
    )


def memory(project: Path, requests: int = 200_000) -> None:
    """Memory and connections of one worker while it answers 200,000 requests (flat)."""
    prepare(project)
    answered, failed = 0, 0
    samples: list[tuple[int, float, int]] = []
    with serve_application(project, "app.main:app") as server:
        script = str(HERE / "mixed.lua")
        command = ["wrk", "-t1", "-c16", f"-d{SECONDS}s", "-s", script, server.url]
        while answered < requests:
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as wrk:
                time.sleep(SECONDS / 2)
                mebibytes = server.process.memory_info().rss / 2**20
                connections = int(subprocess.check_output(["psql", "-Atc", CONNECTIONS]))
                said = wrk.stdout.read() if wrk.stdout else ""
            samples.append((answered, mebibytes, connections))
            answered += int(found(r"(\d+) requests in", said))
            failed += sum(
                map(int, re.findall(r"(?:Non-2xx.*:|connect|read|write|timeout) (\d+)", said))
            )
    print(f"{answered} requests, {failed} failed")
    for quarter in range(5):
        count, mebibytes, connections = samples[quarter * (len(samples) - 1) // 4]
        print(f"after {count}: {mebibytes:.1f} MiB, {connections} connections")
    later = samples[len(samples) // 4 :]
    report("failed", failed, 0)
    report("memory at the end ÷ after a quarter", later[-1][1] / later[0][1], 1.05)
    counts = [sample[2] for sample in samples]
    report("connections", max(counts), POOL)
    closed = sum(max(before - after, 0) for before, after in pairwise(counts))
    report("connections that were closed", closed, 0)


def idle(project: Path) -> None:
    """Requests a second and memory beside 1,000 idle connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * IDLE)), hard))
    prepare(project)
    flags = ("--timeout-keep-alive", "3600")
    with (
        serve_application(project, "app.main:app", *flags) as beside,
        serve_application(project, "app.main:app", *flags) as alone,
    ):
        before = beside.process.memory_info().rss
        with idling(beside) as clients:
            after = beside.process.memory_info().rss
            print(f"{(after - before) / 2**10 / IDLE:.1f} KiB for each connection")
            for kind, path in list(REQUESTS.items())[:2]:
                loads = in_turns("", beside=(beside, path), alone=(alone, path))
                for name, measured in loads.items():
                    rate = statistics.median(load.rate for load in measured)
                    most = statistics.median(load.percentiles["99"] for load in measured)
                    print(f"{kind}, {name}: {rate:.0f}/s, 99 % within {most:.1f} ms")
            report("connections that were lost", sum(not ask(client) for client in clients), 0)


@contextmanager
def idling(server: Server) -> Iterator[list[HTTPConnection]]:
    """Open connections with one request each, and keep them open."""
    with ExitStack() as stack:
        clients = [HTTPConnection("127.0.0.1", server.port) for _ in range(IDLE)]
        for client in clients:
            client.connect()
            stack.callback(client.close)
        if not all(map(ask, clients)):
            sys.exit("a connection was refused")
        yield clients


def ask(client: HTTPConnection) -> bool:
    """Tell whether the connection still works."""
    kept = client.sock
    try:
        client.request("GET", "/health/live")
        return client.getresponse().read() != b"" and client.sock is kept
    except OSError:
        return False


BENCHMARKS = [startup, memory, idle]
