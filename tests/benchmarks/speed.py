"""Requests to a served project, compared with applications that do less."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from measure import TEMPLATE, generate, report, report_ratio, run
from serving import Server, serve

HERE = Path(__file__).parent
REQUESTS = {"a page of 50": "/items", "one by key": "/items/1", "create": "/items"}
AT_LEAST = {"a page of 50": 1.6, "one by key": 1.6, "create": 1.1}  # ÷ the usual template
PEERS = {  # see peers/
    "the example": "app.main:app",
    "usual": "usual:app",
    "Litestar": "litestar_sqlalchemy:app",
    "Django Ninja": "django_ninja:app",
    "asyncpg": "fastapi_asyncpg:app",
    "floor": "floor:app",
}
PACKAGES = ["django", "django-ninja", "litestar[sqlalchemy]", "orjson", "psycopg[pool]"]
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
    project: Path, application: str, *flags: str, database: str = "app", workers: int = 1
) -> AbstractContextManager[Server]:
    """Serve an application of the project, of this directory or of `peers`."""
    names = {"PGDATABASE", "DATABASE_URL", "DATABASE_URL_SYNC"}
    env = os.environ | {
        name: re.sub(r"(^|/)app($|\?)", rf"\1{database}\2", os.environ[name]) for name in names
    }
    env["PYTHONPATH"] = os.pathsep.join([str(HERE), str(HERE / "peers")])
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
        memory=server.process.memory_info().rss / 2**20,
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


def speed(project: Path) -> None:
    """The example beside its peers (÷ usual: reads at least 1.6, create 1.1, p99 at most 0.5)."""
    prepare(project)
    run(["uv", "pip", "install", *PACKAGES], project)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(serve_application(project, application))
            for name, application in PEERS.items()
        }
        print(f"{'':13} {'':12} requests/s    /CPU s  p50 ms  p99 ms     MiB")
        for kind, path in REQUESTS.items():
            script = "create.lua" if kind == "create" else ""
            show(kind, in_turns(script, **{name: (servers[name], path) for name in servers}))
    login(project)


OPEN = """
from app.items import routes
from app.main import app

app.include_router(routes.router, prefix="/open")
"""
SIGN_IN = """
import asyncio
from datetime import timedelta

from app.auth import tokens
from app.config import get_settings
from app.database import Database, create_engine
from app.models.account import Account, TokenKind


async def main() -> None:
    async with Database(create_engine(get_settings())).sessions.begin() as session:
        session.add(account := Account(email="ann@example.com"))
        await session.flush()
        token, _ = await tokens.issue(session, account.id, TokenKind.SESSION, timedelta(days=1))
        print(token)


asyncio.run(main())
"""


def login(project: Path) -> None:
    """What a login adds to reads: the same routes with it and without it, in one process."""
    project = generate(project.parent / "accounts", TEMPLATE, "auth=accounts")
    (project / "open_app.py").write_text(OPEN)
    run(["uv", "sync", "--quiet"], project)
    python = str(project / ".venv/bin/python")
    run([python, "-m", "alembic", "-q", "-c", "alembic.ini", "upgrade", "head"], project)
    fill("app", 1000)
    command = [python, "-c", SIGN_IN]
    token = subprocess.check_output(command, cwd=project, env=os.environ, text=True)
    os.environ["TOKEN"] = token.strip()  # signed_in.lua reads it
    with serve_application(project, "open_app:app") as server:
        for kind, path in {"a page of 50": "/items", "one by key": "/items/1"}.items():
            names = {"with a login": (server, path), "without": (server, f"/open{path}")}
            signed, other = in_turns("signed_in.lua", **names).values()
            micros = 1e6 / middle(signed, rate) - 1e6 / middle(other, rate)
            print(f"{kind}: a login adds {micros:.0f} µs to {1e6 / middle(other, rate):.0f}")


def show(kind: str, loads: dict[str, list[Load]]) -> None:
    """Print the medians, and the example's divided by those of the usual template and floor."""
    figures: list[Callable[[Load], float]] = [
        rate,
        per_cpu,
        lambda load: load.percentiles["50"],
        p99,
        lambda load: load.memory,
    ]
    for name, those in loads.items():
        row = (middle(those, figure) for figure in figures)
        print(f"{kind:13} {name:12}", "{:10.0f} {:9.0f} {:7.1f} {:7.1f} {:7.0f}".format(*row))
    ours, usual, floor = (loads[name] for name in ("the example", "usual", "floor"))
    report_ratio(f"{kind} ÷ usual", middle(ours, rate) / middle(usual, rate), AT_LEAST[kind])
    report(f"{kind}, p99 ÷ usual", middle(ours, p99) / middle(usual, p99), 0.5)
    efficiency = middle(ours, per_cpu) / middle(usual, per_cpu)
    print(f"{kind} ÷ usual, of processor time: {efficiency:.2f}")
    print(f"{kind} ÷ floor: {middle(ours, rate) / middle(floor, rate):.2f} (aim: 0.33)")


BENCHMARKS = [speed, login]
