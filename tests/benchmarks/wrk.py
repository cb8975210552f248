"""Requests that wrk sends to a served project."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure import run
from serving import Server, serve

HERE = Path(__file__).parent
REQUESTS = {"a page of 50": "/items", "one by key": "/items/1", "create": "/items"}
ROUNDS = 3
SECONDS = 3


@dataclass
class Load:
    """Results of wrk, latencies in ms, and the server's MiB of memory at the end."""

    rate: float  # requests a second
    per_cpu: float  # requests a second of the server's processor time
    percentiles: dict[str, float]
    memory: float


def serve_application(
    project: Path,
    application: str,
    *flags: str,
    database: str = "app",
    workers: int = 1,
    env: dict[str, str] | None = None,
) -> AbstractContextManager[Server]:
    """Serve an application of the project, of this directory or of `peers`."""
    names = {"PGDATABASE", "DATABASE_URL", "DATABASE_URL_SYNC"}
    env = (
        os.environ
        | (env or {})
        | {name: re.sub(r"(^|/)app($|\?)", rf"\1{database}\2", os.environ[name]) for name in names}
    )
    env["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE / "peers")])
    command = ("uvicorn", application, "--port=PORT")
    return serve(project, *flags, command=command, env=env, workers=workers)


def load(
    server: Server, path: str, script: str = "", connections: int = 16, seconds: int = SECONDS
) -> Load:
    """Send requests with wrk."""
    options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
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
        memory=server.process.memory_info().rss / 2**20,
    )


def found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    if not match:
        sys.exit(f"wrk said:\n{text}")
    return match[1]


def in_turns(
    script: str, rounds: int = ROUNDS, seconds: int = SECONDS, /, **urls: tuple[Server, str]
) -> dict[str, list[Load]]:
    """Load each server and path several times, in turns."""
    loads: dict[str, list[Load]] = {name: [] for name in urls}
    for _ in range(rounds):
        for name, (server, path) in urls.items():
            loads[name].append(load(server, path, script, seconds=seconds))
    return loads


def prepare(project: Path, rows: int = 1000) -> None:
    """Create the table, with items 1 to `rows`."""
    run(["alembic", "upgrade", "head"], project)
    fill("app", rows)


def fill(database: str, rows: int) -> None:
    items = "INSERT INTO items (name, description) SELECT 'item ' || n, 'description ' || n"
    series = f"FROM generate_series(1, {rows}) AS n ON CONFLICT DO NOTHING"
    run(["psql", database, "-c", f"{items} {series}", "-c", "VACUUM ANALYZE items"], HERE)


def middle(loads: list[Load], figure: Callable[[Load], float]) -> float:
    return median(map(figure, loads))


def rate(load: Load) -> float:
    return load.rate


def per_cpu(load: Load) -> float:
    return load.per_cpu


def p99(load: Load) -> float:
    return load.percentiles["99"]
