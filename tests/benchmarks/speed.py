"""Requests to a served project, compared with applications that do less."""

import os
import re
import subprocess
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure import report_ratio, run
from serving import Server, serve

HERE = Path(__file__).parent
REQUESTS = {"a page of 50": "/items", "one by key": "/items/1", "create": "/items"}
AT_LEAST = {"a page of 50": 0.4, "one by key": 0.4, "create": 0.5}
FLAGS = {"uvloop, httptools": [], "asyncio, h11": ["--loop", "asyncio", "--http", "h11"]}
ROUNDS = 3
SECONDS = 3


@dataclass
class Load:
    """Results of wrk: requests a second, requests a second of processor time, latencies in ms."""

    rate: float
    per_cpu: float
    percentiles: dict[str, float]


def serve_application(
    project: Path, application: str, *flags: str, workers: int = 1
) -> AbstractContextManager[Server]:
    """Serve an application of the project or of this directory."""
    env = os.environ | {"PYTHONPATH": str(HERE)}
    command = ("uvicorn", application, "--port=PORT")
    return serve(project, *flags, command=command, env=env, workers=workers)


def load(server: Server, path: str, script: str = "", connections: int = 16) -> Load:
    """Send requests with wrk."""
    options = ["-t1", f"-c{connections}", f"-d{SECONDS}s", "--latency"]
    if script:
        options += ["-s", str(HERE / script)]
    before = server.cpu()
    said = subprocess.check_output(["wrk", *options, server.url + path], text=True)
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


def in_turns(script: str, **urls: tuple[Server, str]) -> dict[str, list[Load]]:
    """Load each server and path several times, in turns."""
    loads: dict[str, list[Load]] = {name: [] for name in urls}
    for _ in range(ROUNDS):
        for name, (server, path) in urls.items():
            loads[name].append(load(server, path, script))
    return loads


def prepare(project: Path, rows: int = 1000) -> None:
    """Create the table, with items 1 to `rows`."""
    run(["alembic", "upgrade", "head"], project)
    items = "INSERT INTO items (name, description) SELECT 'item ' || n, 'description ' || n"
    series = f"FROM generate_series(1, {rows}) AS n"
    run(["psql", "-c", f"{items} {series}", "-c", "VACUUM ANALYZE items"], project)


def speed(project: Path) -> None:
    """Requests a second ÷ Starlette and asyncpg alone (page, key at least 0.40, create 0.50)."""
    prepare(project)
    run(["uv", "pip", "install", "orjson"], project)
    for server, flags in FLAGS.items():
        print(f"\n{server}: requests/s; of processor time; ms, 50 % and 99 %; both rates ÷ floor")
        with (
            serve_application(project, "app.main:app", *flags) as ours,
            serve_application(project, "usual:app", *flags) as usual,
            serve_application(project, "floor:app", *flags) as floor,
        ):
            for kind, path in REQUESTS.items():
                loads = in_turns(
                    "create.lua" if kind == "create" else "",
                    generated=(ours, path),
                    usual=(usual, path),
                    constant=(usual, f"/constant{path}"),
                    floor=(floor, path),
                )
                show(kind, loads)


def show(kind: str, loads: dict[str, list[Load]]) -> None:
    """Print the medians, and the rates divided by the floor's."""
    rates = {name: median(load.rate for load in those) for name, those in loads.items()}
    per_cpu = {name: median(load.per_cpu for load in those) for name, those in loads.items()}
    for name, those in loads.items():
        half, most = (median(each.percentiles[p] for each in those) for p in ("50", "99"))
        figures = f"{rates[name]:7.0f} {per_cpu[name]:7.0f} {half:6.1f} {most:6.1f}"
        ratios = f"{rates[name] / rates['floor']:6.2f} {per_cpu[name] / per_cpu['floor']:5.2f}"
        print(f"{kind:13} {name:9} {figures} {ratios}")
    report_ratio(f"{kind} ÷ floor", rates["generated"] / rates["floor"], AT_LEAST[kind])


def workers(project: Path) -> None:
    """Requests a second of 1 worker and of 2, which share the machine with wrk."""
    prepare(project)
    with (
        serve_application(project, "app.main:app") as one,
        serve_application(project, "app.main:app", workers=2) as two,
    ):
        loads = in_turns("", one=(one, "/items"), two=(two, "/items"))
    rates = [median(load.rate for load in those) for those in loads.values()]
    print(f"1 worker {rates[0]:.0f}/s, 2 workers {rates[1]:.0f}/s: {rates[1] / rates[0]:.2f}")


def pages(project: Path) -> None:
    """The first page of 1,000,000 rows and the last (equal)."""
    prepare(project, rows=1_000_000)
    with serve_application(project, "app.main:app") as server:
        loads = in_turns("", first=(server, "/items"), last=(server, "/items?after=999900"))
    first, last = (median(load.rate for load in those) for those in loads.values())
    print(f"first page {first:.0f}/s, last page {last:.0f}/s")
    report_ratio("last page ÷ first", last / first, 0.9)


BENCHMARKS = [speed, workers, pages]
