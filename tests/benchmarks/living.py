"""A served project over time: its start and its memory."""

import re
import shutil
import statistics
import subprocess
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

from measure import answers, compare, report, run
from wrk import HERE, SECONDS, found, prepare, serve_application

POOL = 15  # connections of one worker
CONNECTIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app'"


def startup(project: Path) -> None:
    """An idle worker's start and memory ÷ those of bare FastAPI and SQLAlchemy (at most 1.25)."""
    start_beside_bare(project, limit=1.25)


def startup_with_options(project: Path) -> None:
    """The same of a project with every option (at most 1.6)."""
    start_beside_bare(project, limit=1.6)


def start_beside_bare(project: Path, limit: float) -> None:
    """Start both without development dependencies: structlog and Mako import rich and Pygments."""
    prepare(project)
    production = project.parent / "production"
    shutil.copytree(project, production, ignore=shutil.ignore_patterns(".venv", ".postgres"))
    run(["uv", "sync", "--quiet", "--no-dev"], production)
    idle: dict[str, list[int]] = {}
    ready: dict[str, list[int]] = {}

    def start(application: str) -> float:
        begin = time.perf_counter()
        with serve_application(production, application) as server:
            elapsed = time.perf_counter() - begin
            idle.setdefault(application, []).append(server.process.memory_info().rss)
            assert answers(f"{server.url}/health/ready")
            ready.setdefault(application, []).append(server.process.memory_info().rss)
        return elapsed

    compare(
        "start of a worker",
        partial(start, "app.main:app"),
        "bare",
        partial(start, "bare:app"),
        limit=limit,
    )
    for name, memory in {"idle worker": idle, "worker after /health/ready": ready}.items():
        ours, bare = (statistics.median(memory[name]) / 2**20 for name in memory)
        print(f"{name} {ours:.1f} MiB, bare {bare:.1f} MiB")
        report(f"memory, {name} ÷ bare", ours / bare, limit)


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


BENCHMARKS = [startup, startup_with_options, memory]
