"""Requests to a served project, beside the floor: the same answers without the template."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import psutil
from measure import answers, report_ratio, run

HERE = Path(__file__).parent
REQUESTS = {"a page of 50": "/items", "one by key": "/items/1", "create": "/items"}
AT_LEAST = {"a page of 50": 0.4, "one by key": 0.4, "create": 0.5}
FLAGS = {"uvloop, httptools": [], "asyncio, h11": ["--loop", "asyncio", "--http", "h11"]}
ROUNDS = 3
SECONDS = 4


@dataclass
class Server:
    """uvicorn with an application on `port`."""

    process: psutil.Process
    port: int

    def cpu(self) -> float:
        """Seconds of processor time so far, its workers' included."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(sum(process.cpu_times()[:2]) for process in family)


@dataclass
class Load:
    """What wrk saw: requests in a second, also of processor time, and latencies in ms."""

    rate: float
    per_cpu: float
    percentiles: dict[str, float]


@contextmanager
def served(project: Path, application: str, *flags: str) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    command = [".venv/bin/python", "-m", "uvicorn", application, "--port", str(port), *flags]
    process = psutil.Popen(
        command,
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(HERE)},  # where the floor is
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not answers(f"http://127.0.0.1:{port}/items?limit=1"):
            if process.poll() is not None:
                sys.exit(f"{application} did not start")
            time.sleep(0.05)
        yield Server(process, port)
    finally:
        process.terminate()
        process.wait()


def load(server: Server, path: str, script: str = "", connections: int = 16) -> Load:
    """Drive `server` with wrk."""
    options = ["-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency"]
    if script:
        options += ["-s", str(HERE / script)]
    before = server.cpu()
    url = f"http://127.0.0.1:{server.port}{path}"
    said = subprocess.check_output(["wrk", *options, url], text=True)
    if "Non-2xx" in said or "Socket errors" in said:
        sys.exit(f"{path}: {said}")
    requests = int(found(r"(\d+) requests in", said))
    latencies = re.findall(r"(\d+)%\s+([\d.]+)(us|ms|s)\b", said)
    units = {"us": 0.001, "ms": 1, "s": 1000}
    return Load(
        rate=float(found(r"Requests/sec:\s+([\d.]+)", said)),
        per_cpu=requests / (server.cpu() - before),
        percentiles={percent: float(value) * units[unit] for percent, value, unit in latencies},
    )


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if not match:
        sys.exit(f"wrk said:\n{text}")
    return match[1]


def in_turns(
    first: Server, second: Server, path: str, script: str = ""
) -> tuple[list[Load], list[Load]]:
    """Several loads of each, one after the other."""
    pairs = [(load(first, path, script), load(second, path, script)) for _ in range(ROUNDS)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def prepare(project: Path, rows: int = 1000) -> None:
    """Make the table, with items 1 to `rows`."""
    run(["alembic", "upgrade", "head"], project)
    items = "INSERT INTO items (name, description) SELECT 'item ' || n, 'description ' || n"
    series = f"FROM generate_series(1, {rows}) AS n"
    run(["psql", "-c", f"{items} {series}", "-c", "VACUUM ANALYZE items"], project)


def speed(project: Path) -> None:
    """Requests a second ÷ Starlette and asyncpg alone (page, key at least 0.40, create 0.50)."""
    from readmes import make_faster  # beside this directory, where run.py does not look

    prepare(project)
    run(["uv", "pip", "install", "orjson"], project)
    for server, flags in FLAGS.items():
        print(f"\n{server}: requests/s; of processor time; latency in ms, 50 % and 99 %")
        with (
            served(project, "app.main:app", *flags) as ours,
            served(project, "floor:app", *flags) as floor,
        ):
            for kind, path in REQUESTS.items():
                script = "create.lua" if kind == "create" else ""
                show(kind, *in_turns(ours, floor, path, script))
    print("\nThe page as the README has it for speed")
    make_faster(project)
    with (
        served(project, "app.main:app") as ours,
        served(project, "floor:app") as floor,
    ):
        show("a page of 50", *in_turns(ours, floor, "/items"))


def show(kind: str, ours: list[Load], floor: list[Load]) -> None:
    figures = []
    for name, loads in (("generated", ours), ("floor", floor)):
        rate = median(load.rate for load in loads)
        per_cpu = median(load.per_cpu for load in loads)
        half, most = (median(load.percentiles[p] for load in loads) for p in ("50", "99"))
        print(f"{kind:14} {name:9} {rate:7.0f} {per_cpu:7.0f} {half:7.1f} {most:7.1f}")
        figures.append((rate, per_cpu))
    ratios = [first / second for first, second in zip(*figures, strict=True)]
    report_ratio(f"{kind} ÷ floor", ratios[0], AT_LEAST[kind])
    print(f"{kind}, requests for each second of processor time ÷ floor: {ratios[1]:.2f}")


def workers(project: Path) -> None:
    """Requests a second of 1 worker and of 2, which share the machine with wrk."""
    prepare(project)
    with (
        served(project, "app.main:app") as one,
        served(project, "app.main:app", "--workers", "2") as two,
    ):
        rates = [median(load.rate for load in loads) for loads in in_turns(one, two, "/items")]
    print(f"1 worker {rates[0]:.0f}/s, 2 workers {rates[1]:.0f}/s: {rates[1] / rates[0]:.2f}")


def pages(project: Path) -> None:
    """The first page of 1,000,000 rows and the last (equal)."""
    prepare(project, rows=1_000_000)
    with served(project, "app.main:app") as server:
        loads = [
            (load(server, "/items"), load(server, "/items?after=999900")) for _ in range(ROUNDS)
        ]
    first, last = (median(pair[n].rate for pair in loads) for n in (0, 1))
    print(f"first page {first:.0f}/s, last page {last:.0f}/s")
    report_ratio("last page ÷ first", last / first, 0.9)


BENCHMARKS = [speed, workers, pages]


if __name__ == "__main__":
    {benchmark.__name__: benchmark for benchmark in BENCHMARKS}[sys.argv[1]](Path(sys.argv[2]))
