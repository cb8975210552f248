"""What a generated project survives: counts of requests, and which promises were broken.

Run by tests, and with larger numbers by benchmarks/run.py, as
`python tests/survival.py PROJECT NAME`.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from balancer import balanced
from load import Load, Server, Stage, serve, stage, under_load, wait_until
from servers import pgbouncer, pgbouncer_version

# Of the generated app/database.py: connections, and seconds.
POOL, POOL_TIMEOUT, CONNECT_TIMEOUT, GRACE = 15, 5, 5, 5
CLOSE = 2  # seconds that SQLAlchemy waits for a connection to close
END = 10  # seconds from SIGTERM to SIGKILL, as container engines have it

# The application's connections: no others here are by TCP.
CONNECTIONS = "SELECT {} FROM pg_stat_activity WHERE client_port > 0"


class Outcome(NamedTuple):
    """What came of a scenario; `faults` are the promises that it found broken."""

    counts: str
    faults: list[str]


def judge(load: Load, faults: list[str], statuses: tuple[int, ...] = (503,)) -> Outcome:
    """Add what holds in every scenario: how requests may fail, and that nothing is lost."""
    lost = load.lost()
    unexpected = {f"{a.status} {a.detail}" for a in load.failed if a.status not in statuses}
    found = [*faults, *unexpected, *load.wrong, *(f"lost {name}" for name in lost.values())]
    return Outcome(f"{load.describe()}, lost {len(lost)}", found)


def early(load: Load, begun: float, stopped: float) -> list[str]:
    """Failures that were answered while all was well still."""
    return [
        f"{a.status} {a.detail}, too early"
        for a in load.failed
        if a.sent > begun and a.sent + a.seconds < stopped
    ]


def late(load: Load, moment: float) -> list[str]:
    """Failures of requests that were sent when all was well again."""
    return [f"{a.status} {a.detail}, too late" for a in load.failed if a.sent > moment]


def restart(stage: Stage, mode: str, times: int = 1, full: float = 0.3) -> Outcome:
    """PostgreSQL restarted under load.

    `full` is the part of the rate before that counts as such; others may use the machine too.
    """
    faults, pauses = [], []
    with serve(stage.project, stage.environment) as server:
        with under_load(server.url, 16) as load:
            for _ in range(times):
                begun = time.monotonic()
                load.wait_for(300)
                stopped = time.monotonic()
                stage.restart(mode)
                returned = time.monotonic()
                wanted = load.rate(begun, stopped) * full
                wait_until(partial(is_as_fast, load, returned, wanted), 30)
                pauses.append(time.monotonic() - returned)
                faults += early(load, begun, stopped) + late(load, returned)
        if max(pauses) > 2:
            faults.append(f"{max(pauses):.1f} s until it was as fast as before")
        counts, faults = judge(load, faults)
    return Outcome(f"{counts}, back after {max(pauses):.1f} s", faults)


def is_as_fast(load: Load, since: float, wanted: float) -> bool:
    """Whether it was, for half of a second."""
    now = time.monotonic()
    return now - 0.5 >= since and load.rate(now - 0.5, now) >= wanted


class Proxy(socketserver.ThreadingTCPServer):
    """Forwards TCP; stalled, it drops what comes and closes nothing.

    Links that were open then, or are made meanwhile, stay dead.
    """

    daemon_threads = True

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), Link)
        self.target, self.stalled, self.age = target, False, 0

    def stall(self) -> None:
        self.stalled, self.age = True, self.age + 1


class Link(socketserver.BaseRequestHandler):
    server: Proxy

    def handle(self) -> None:
        self.age = -1 if self.server.stalled else self.server.age
        with socket.create_connection(("127.0.0.1", self.server.target)) as onward:
            back = (onward, self.request)
            threading.Thread(target=self.forward, args=back, daemon=True).start()
            self.forward(self.request, onward)

    def forward(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if self.age == self.server.age:
                    target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    with Proxy(target) as server, ThreadPoolExecutor(1) as thread:
        thread.submit(server.serve_forever, 0.05)
        try:
            yield server
        finally:
            server.shutdown()


def half_open(stage: Stage, clients: int = 8, rounds: int = 2) -> Outcome:
    """A link that goes dead without a word, for what was connected then for ever."""
    with proxy(stage.port) as between:
        url = stage.environment["DATABASE_URL"].replace(
            str(stage.port), str(between.server_address[1])
        )
        settings = {"DATABASE_URL": url, "DATABASE_STATEMENT_TIMEOUT": "1s"}
        with serve(stage.project, stage.environment | settings) as server:
            with under_load(server.url, clients) as load:
                load.wait_for(200)
                between.stall()
                wait_until(lambda: len(load.failed) >= rounds * clients, 30 * rounds)
                between.stalled, healed = False, time.monotonic()
                load.wait_for(300)
            limit = POOL_TIMEOUT + CONNECT_TIMEOUT + 1 + GRACE + CLOSE
            slow = [f"{a.seconds:.1f} s" for a in load.answers if a.seconds > limit]
            return judge(load, slow + late(load, healed), (503, 504))


async def get_all(url: str, count: int) -> list[tuple[int, float, str]]:
    """Status, seconds and body of GETs that are sent at the same time."""

    async def get(http: httpx.AsyncClient) -> tuple[int, float, str]:
        started = time.monotonic()
        response = await http.get("/items")
        return response.status_code, time.monotonic() - started, response.text

    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
        return await asyncio.gather(*(get(http) for _ in range(count)))


def exhausted(stage: Stage, more: int = 5) -> Outcome:
    """Every connection of the pool in use for longer than others wait."""
    faults = []
    with (
        serve(stage.project, stage.environment) as server,
        ThreadPoolExecutor(2) as thread,
    ):
        with stage.locked():
            holding = thread.submit(asyncio.run, get_all(server.url, POOL))
            wait_until(lambda: stage.waiting() == POOL, 20, stage.waiting)
            refused = asyncio.run(get_all(server.url, more))
            if stage.waiting() != POOL:
                faults.append(f"{stage.waiting()} connections in use")
        for status, seconds, body in refused:
            if status != 503 or "busy" not in body or seconds > POOL_TIMEOUT + 2:
                faults.append(f"{status} after {seconds:.1f} s: {body}")
        faults += [body for status, _, body in holding.result() if status != 200]
        faults += [
            body for status, _, body in asyncio.run(get_all(server.url, 30)) if status != 200
        ]
    return Outcome(f"sent {POOL + more + 30}, failed {len(refused)} (503), lost 0", faults)


def overtime(stage: Stage, count: int = 3) -> Outcome:
    """Queries that take longer than they may."""
    faults = []
    settings = {"DATABASE_STATEMENT_TIMEOUT": "500ms", "DATABASE_POOL_SIZE": str(count)}
    backends = CONNECTIONS.format("array_agg(pid ORDER BY pid)")
    with serve(stage.project, stage.environment | settings) as server:
        asyncio.run(get_all(server.url, count))
        with stage.locked():
            answers = asyncio.run(get_all(server.url, count))
            faults += [f"{a}" for a in answers if a[0] != 504 or a[1] > 2]
        before = stage.psql(backends)
        faults += [f"{a}" for a in asyncio.run(get_all(server.url, count)) if a[0] != 200]
        if stage.psql(backends) != before:
            faults.append("connections were not used again")
    return Outcome(f"sent {3 * count}, failed {count} (504), lost 0", faults)


def leave(url: str, number: int) -> socket.socket:
    """Send a request, every other a write, on a socket that the caller closes."""
    connection = socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))
    body = json.dumps({"name": f"left {number}"}) if number % 2 else ""
    head = f"{'POST' if body else 'GET'} /items HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
    connection.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n{body}".encode())
    return connection


def cancelled(stage: Stage, count: int = 200, at_once: int = 20) -> Outcome:
    """Clients that leave while the database works for them, or while they wait for it."""
    faults = []
    with serve(stage.project, stage.environment) as server, ThreadPoolExecutor(1) as thread:
        with stage.locked():
            for first in range(0, count, at_once):
                left = [leave(server.url, first + number) for number in range(at_once)]
                wait_until(lambda: stage.waiting() == POOL, 20, stage.waiting)
                for connection in left:
                    connection.close()
                wait_until(lambda: stage.waiting() == 0, 20, stage.waiting)
        if stage.psql("SELECT count(*) FROM items WHERE name ~ '^left'") != "0":
            faults.append("what was cancelled is stored")
        if busy := stage.psql(CONNECTIONS.format("state, query") + " AND state <> 'idle'"):
            faults.append(busy)
        with stage.locked():
            whole = thread.submit(asyncio.run, get_all(server.url, POOL))
            wait_until(lambda: stage.waiting() == POOL, 20, stage.waiting)
            if stage.psql(CONNECTIONS.format("count(*)")) != str(POOL):
                faults.append(stage.psql(CONNECTIONS.format("state, query")))
        faults += [body for status, _, body in whole.result() if status != 200]
        if "Traceback" in server.log.read_text():
            faults.append(server.log.read_text())
    return Outcome(f"sent {count + POOL}, left {count}, failed 0, lost 0", faults)


REVISION = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = {0!r}, {1!r}, None, None


def upgrade() -> None:
    {2}
"""
CHANGES = [
    'op.add_column("items", sa.Column("note", sa.Text, server_default="", nullable=False))',
    'op.drop_column("items", "note")',
    'op.alter_column("items", "description", type_=sa.String(10_000))',
    'op.alter_column("items", "description", type_=sa.Text)',
]


def migrated(stage: Stage, times: int = 1) -> Outcome:
    """A column added while the application serves, one dropped, and types changed."""
    future = stage.directory / "future"
    ignored = shutil.ignore_patterns(".*")
    shutil.copytree(stage.project, future, ignore=ignored, dirs_exist_ok=True)
    last = "1f0c5e7a9b3d"
    for number in range(len(CHANGES) * times):
        text = REVISION.format(f"r{number}", last, CHANGES[number % len(CHANGES)])
        (future / "alembic" / "versions" / f"{number}.py").write_text(text)
        last = f"r{number}"
    with serve(stage.project, stage.environment) as server:
        with under_load(server.url, 8) as load:
            for _ in range(len(CHANGES) * times):
                load.wait_for(100)
                stage.alembic("-c", str(future / "alembic.ini"), "upgrade", "+1")
            load.wait_for(100)
        return judge(load, [], ())


def rolling(stage: Stage, *options: str, times: int = 1) -> Outcome:
    """Replicas replaced behind a balancer: a new one is ready, then an old one gets SIGTERM."""
    faults = []
    environment = stage.environment | {"SHUTDOWN_DELAY": "2"}
    with ExitStack() as stack:
        servers = [stack.enter_context(serve(stage.project, environment, *options))]
        balancer = stack.enter_context(balanced(servers))
        with under_load(f"http://127.0.0.1:{balancer.port}") as load:
            for _ in range(times):
                load.wait_for(100)
                servers.append(stack.enter_context(serve(stage.project, environment, *options)))
                wait_until(lambda: servers[-1] in balancer.ready, 10)
                load.wait_for(100)
                old = servers[-2]
                old.process.send_signal(signal.SIGTERM)
                wait_until(partial(is_ending, old), 1)
                if not httpx.get(f"{old.url}/items", trust_env=False).is_success:
                    faults.append("requests are refused before the balancer knows")
                if status := old.process.wait(timeout=END):
                    faults.append(f"exit status {status}")
            load.wait_for(100)
        return judge(load, faults, ())


def is_ending(server: Server) -> bool:
    """Whether it says that it is, while it goes on."""
    return "about to end" in httpx.get(f"{server.url}/health/ready", trust_env=False).text


def pooled(stage: Stage, total: int, prepared: int) -> Outcome:
    """Three processes through PgBouncer, which has four connections for their 24 clients.

    It keeps as many statements prepared; one too old to keep any is not told so.
    """
    if pgbouncer_version() >= (1, 21):
        settings = f"max_prepared_statements = {prepared}"
    elif prepared:
        pytest.skip("needs Debian's package pgbouncer of version 1.21 or later")
    else:
        settings = ""
    with pgbouncer(stage.directory, stage.port, 4, settings) as port:
        url = stage.environment["DATABASE_URL"].replace(str(stage.port), str(port))
        given = {"DATABASE_URL": f"{url}?application_name=app", "DATABASE_POOLER": "pgbouncer"}
        with serve(stage.project, stage.environment | given, "--workers=3") as server:
            load = Load(server.url, 24)
            asyncio.run(load.run(total))
            stage.alembic("check")  # past it
            return judge(load, [], ())


def main(project: Path, name: str) -> None:
    found: list[str] = []
    for title, scenario in SCENARIOS[name].items():
        with tempfile.TemporaryDirectory() as place:
            try:
                with stage(project, Path(place)) as prepared:
                    counts, faults = scenario(prepared)
            except pytest.skip.Exception as reason:
                counts, faults = str(reason), []
            except (AssertionError, subprocess.TimeoutExpired) as error:
                counts, faults = "broken off", [str(error)]
        found += faults
        print(f"{title}: {counts}", *faults[:5], sep="\n  BROKEN: ", flush=True)
    sys.exit(bool(found))


SCENARIOS: dict[str, dict[str, Callable[[Stage], Outcome]]] = {
    "survival": {
        "restart fast": lambda stage: restart(stage, "fast", 5, 0.8),
        "restart immediate": lambda stage: restart(stage, "immediate", 5, 0.8),
        "half-open link": lambda stage: half_open(stage, 16, 2),
        "pool exhausted": lambda stage: exhausted(stage, 50),
        "queries over their time": overtime,
        "clients that leave": cancelled,
        "migrations": lambda stage: migrated(stage, 5),
        "SIGTERM": lambda stage: rolling(stage, times=5),
        "SIGTERM, two workers": lambda stage: rolling(stage, "--workers=2", times=5),
    },
    "pgbouncer": {
        "without prepared statements": lambda stage: pooled(stage, 20_000, prepared=0),
        "with prepared statements": lambda stage: pooled(stage, 20_000, prepared=200),
    },
}

if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
