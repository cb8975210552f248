"""What a served project survives: the count of its requests, and the promises it broke.

Tests run these scenarios, and benchmarks run them with larger numbers.
"""

import asyncio
import contextlib
import json
import shutil
import signal
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import NamedTuple

import httpx
import pytest
from balancer import balanced
from load import Answer, Load, Stage, under_load
from servers import pgbouncer, pgbouncer_version
from serving import Server, wait_until

# The limits in the generated app/database/engine.py: connections, and seconds.
POOL, POOL_TIMEOUT, CONNECT_TIMEOUT, GRACE = 15, 5, 5, 5
CLOSE = 2  # seconds that SQLAlchemy waits for a connection to close
STATEMENT = 5  # seconds: a slow machine fills the pool with waiting statements before they end
PAUSE = 0.02  # seconds: load beside which other processes start
DELAY = 4  # seconds from SIGTERM until connections are refused
END = 10  # seconds from SIGTERM to SIGKILL, as container engines have it

# The application's connections. No other client connects by TCP.
CONNECTIONS = "SELECT {} FROM pg_stat_activity WHERE client_port > 0"


class Outcome(NamedTuple):
    """The result of a scenario. `faults` are the promises that were broken."""

    counts: str
    faults: list[str]


def judge(load: Load, faults: list[str], statuses: tuple[int, ...] = (503,)) -> Outcome:
    """Add the promises of every scenario: failures have one of `statuses`, no write is lost."""
    lost = load.lost()
    unexpected = {describe(answer) for answer in load.failed if answer.status not in statuses}
    found = [*faults, *unexpected, *load.wrong, *(f"lost {name}" for name in lost.values())]
    return Outcome(f"{load.describe()}, lost {len(lost)}", found)


def describe(answer: Answer) -> str:
    return f"{answer.status} {answer.detail}"


def early(load: Load, begun: float, stopped: float) -> list[str]:
    """Return the failures of requests that were answered before the fault."""
    return [
        f"{describe(a)}, too early"
        for a in load.failed
        if a.sent > begun and a.sent + a.seconds < stopped
    ]


def late(load: Load, moment: float) -> list[str]:
    """Return the failures of requests that were sent after the fault."""
    return [f"{describe(a)}, too late" for a in load.failed if a.sent > moment]


def restart(stage: Stage, mode: str, times: int = 1, full: float = 0.3) -> Outcome:
    """PostgreSQL restarts under load.

    The service has recovered at the rate of before times `full`: other programs may use the
    machine too.
    """
    faults, pauses = [], []
    with stage.serve() as server:
        with under_load(server.url, 16) as load:
            for _ in range(times):
                begun = time.monotonic()
                load.wait_for(300)
                stopped = time.monotonic()
                stage.restart(mode)
                returned = time.monotonic()
                wanted = load.rate(begun, stopped) * full
                wait_until(partial(is_as_fast, load, returned, wanted))
                pauses.append(time.monotonic() - returned)
                faults += early(load, begun, stopped) + late(load, returned)
        if max(pauses) > 4:
            faults.append(f"{max(pauses):.1f} s until it was as fast as before")
        asyncio.run(get_pages(server.url, POOL))
        stage.restart(mode)
        faults += failures(asyncio.run(get_pages(server.url, POOL)))  # with idle connections
        counts, faults = judge(load, faults)
    return Outcome(f"{counts}, back after {max(pauses):.1f} s", faults)


def is_as_fast(load: Load, since: float, wanted: float) -> bool:
    """Tell whether the last half second had the wanted rate."""
    now = time.monotonic()
    return now - 0.5 >= since and load.rate(now - 0.5, now) >= wanted


class Proxy(socketserver.ThreadingTCPServer):
    """Forwards TCP. While it stalls, it drops all data and closes no connection.

    Connections that were open then, or are opened meanwhile, stay dead.
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


async def get_pages(url: str, count: int) -> list[Answer]:
    """Send GETs at the same time."""

    async def get(http: httpx.AsyncClient) -> Answer:
        sent = time.monotonic()
        response = await http.get("/items")
        seconds = time.monotonic() - sent
        return Answer("page", sent, seconds, response.status_code, response.text)

    async with httpx.AsyncClient(base_url=url, timeout=60, trust_env=False) as http:
        return await asyncio.gather(*(get(http) for _ in range(count)))


def failures(answers: list[Answer]) -> list[str]:
    return [describe(answer) for answer in answers if not answer.good]


@contextmanager
def occupied(stage: Stage, server: Server) -> Iterator[Future[list[Answer]]]:
    """Keep every connection of the pool busy during the block, each with a GET."""
    with ThreadPoolExecutor(1) as thread, stage.locked():
        answers = thread.submit(asyncio.run, get_pages(server.url, POOL))
        wait_until(lambda: stage.waiting() == POOL, stage.waiting)
        yield answers


def half_open(stage: Stage, clients: int = 8, rounds: int = 1) -> Outcome:
    """The network drops all connections of a full pool and tells neither end."""
    with proxy(stage.port) as between:
        port = str(between.server_address[1])
        url = stage.urls["DATABASE_URL"].replace(str(stage.port), port)
        with stage.serve(
            DATABASE_URL=url, DATABASE_STATEMENT_TIMEOUT_SECONDS=str(STATEMENT)
        ) as server:
            with occupied(stage, server):
                pass
            with under_load(server.url, clients) as load:
                load.wait_for(200)
                between.stall()
                wait_until(lambda: len(load.failed) >= rounds * clients, seconds=60 * rounds)
                between.stalled, healed = False, time.monotonic()
                load.wait_for(300)
            limit = POOL_TIMEOUT + CONNECT_TIMEOUT + STATEMENT + GRACE + CLOSE
            slow = [f"{a.seconds:.1f} s" for a in load.answers if a.seconds > limit]
            return judge(load, slow + late(load, healed), (503, 504))


def exhausted(stage: Stage, more: int = 5) -> Outcome:
    """Every connection of the pool is in use for longer than other requests wait."""
    faults = []
    with stage.serve(DATABASE_LOCK_TIMEOUT_SECONDS="60") as server:
        with occupied(stage, server) as holding:
            refused = asyncio.run(get_pages(server.url, more))
            if stage.waiting() != POOL:
                faults.append(f"{stage.waiting()} connections in use")
        faults += [
            f"{describe(a)} after {a.seconds:.1f} s"
            for a in refused
            if a.status != 503 or "busy" not in a.detail or a.seconds > POOL_TIMEOUT + 5
        ]
        faults += failures(holding.result()) + failures(asyncio.run(get_pages(server.url, 30)))
    return Outcome(f"sent {POOL + more + 30}, failed {len(refused)} (503), lost 0", faults)


def overtime(stage: Stage, count: int = 3) -> Outcome:
    """Queries take longer than the statement timeout."""
    faults = []
    backends = CONNECTIONS.format("array_agg(pid ORDER BY pid)")
    with stage.serve(
        DATABASE_STATEMENT_TIMEOUT_SECONDS="0.5", DATABASE_POOL_SIZE=str(count)
    ) as server:
        asyncio.run(get_pages(server.url, count))
        with stage.locked():
            answers = asyncio.run(get_pages(server.url, count))
            faults += [describe(a) for a in answers if a.status != 504 or a.seconds > 5]
        before = stage.psql(backends)
        faults += failures(asyncio.run(get_pages(server.url, count)))
        if stage.psql(backends) != before:
            faults.append("connections were not used again")
    return Outcome(f"sent {3 * count}, failed {count} (504), lost 0", faults)


def send(port: int, number: int) -> socket.socket:
    """Send a request, every other one a write, on a new socket."""
    connection = socket.create_connection(("127.0.0.1", port))
    body = json.dumps({"name": f"left {number}"}) if number % 2 else ""
    head = f"{'POST' if body else 'GET'} /items HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
    connection.sendall(f"{head}\r\nContent-Type: application/json\r\n\r\n{body}".encode())
    return connection


def abandoned(stage: Stage, count: int = 200, at_once: int = 20) -> Outcome:
    """Clients leave while the database works for them, or while they wait for a connection."""
    faults = []
    busy = CONNECTIONS.format("state, query") + " AND state <> 'idle'"
    with stage.serve(DATABASE_LOCK_TIMEOUT_SECONDS="60") as server:
        for first in range(0, count, at_once):
            with stage.locked():
                left = [send(server.port, first + number) for number in range(at_once)]
                wait_until(lambda: stage.waiting() == POOL, stage.waiting)
                for connection in left:
                    connection.close()
            wait_until(lambda: not stage.psql(busy), lambda: stage.psql(busy))
        with occupied(stage, server) as whole:
            if stage.psql(CONNECTIONS.format("count(*)")) != str(POOL):
                faults.append(stage.psql(CONNECTIONS.format("state, query")))
        faults += failures(whole.result())
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
ADD_AND_DROP = [
    'op.add_column("items", sa.Column("note", sa.Text, server_default="", nullable=False))',
    'op.drop_column("items", "note")',
]
ALTER_TYPE = [
    'op.alter_column("items", "description", type_=sa.String(10_000))',
    'op.alter_column("items", "description", type_=sa.Text)',
]


def migrated(stage: Stage, times: int = 1) -> Outcome:
    """Columns are added, dropped and given other types while the application serves.

    No request fails when a column is added or dropped. After a change of type, statements that
    were prepared before it fail once.
    """
    future = stage.directory / "future"
    ignored = shutil.ignore_patterns(".*")
    shutil.copytree(stage.project, future, ignore=ignored, dirs_exist_ok=True)
    last, faults = "1f0c5e7a9b3d", []
    changes = [*ADD_AND_DROP, *ALTER_TYPE] * times
    for number, change in enumerate(changes):
        text = REVISION.format(f"r{number}", last, change)
        (future / "alembic" / "versions" / f"{number}.py").write_text(text)
        last = f"r{number}"
    with stage.serve() as server:
        with under_load(server.url, pause=PAUSE) as load:
            for change in changes:
                load.wait_for(100)
                failed = len(load.failed)
                stage.alembic("-c", str(future / "alembic.ini"), "upgrade", "+1")
                migrated = time.monotonic()
                load.wait_for(100)
                if change in ADD_AND_DROP:
                    faults += [f"{change}: {describe(a)}" for a in load.failed[failed:]]
                faults += late(load, migrated + 1)
        return judge(load, faults)


def rolling(stage: Stage, workers: int = 1, times: int = 1) -> Outcome:
    """Replicas are replaced behind a balancer: the new one is ready, then SIGTERM ends the old."""
    faults = []

    def replica(stack: ExitStack) -> Server:
        return stack.enter_context(stage.serve(workers=workers, SHUTDOWN_DELAY_SECONDS=str(DELAY)))

    with ExitStack() as stack:
        servers = [replica(stack)]
        balancer = stack.enter_context(balanced(servers))
        with under_load(f"http://127.0.0.1:{balancer.port}", pause=PAUSE) as load:
            for _ in range(times):
                load.wait_for(100)
                servers.append(replica(stack))
                wait_until(lambda: servers[-1] in balancer.ready)
                load.wait_for(100)
                old = servers[-2]
                old.process.send_signal(signal.SIGTERM)
                wait_until(partial(is_ending, old), seconds=DELAY - 1)
                if not httpx.get(f"{old.url}/items", trust_env=False).is_success:
                    faults.append("requests are refused before the balancer knows")
                if status := old.process.wait(timeout=END):
                    faults.append(f"exit status {status}")
            load.wait_for(100)
        return judge(load, faults, ())


def is_ending(server: Server) -> bool:
    """Tell whether readiness reports the shutdown."""
    answer = httpx.get(f"{server.url}/health/ready", trust_env=False)
    return answer.status_code == 503 and "shuts down" in answer.text


def pooled(stage: Stage, total: int, prepared: int) -> Outcome:
    """Three processes with 24 clients share the four connections of PgBouncer.

    PgBouncer keeps `prepared` statements of each connection prepared. A version before 1.21
    does not have that setting.
    """
    if pgbouncer_version() >= (1, 21):
        settings = f"max_prepared_statements = {prepared}"
    elif prepared:
        pytest.skip("needs Debian's package pgbouncer of version 1.21 or later")
    else:
        settings = ""
    with pgbouncer(stage.directory, stage.port, 4, settings) as port:
        url = stage.urls["DATABASE_URL"].replace(str(stage.port), str(port))
        url += "?application_name=app"
        with stage.serve(workers=3, DATABASE_URL=url, DATABASE_POOLER="pgbouncer") as server:
            load = Load(server.url, 24)
            asyncio.run(load.run(total))
            stage.alembic("check")  # over the direct connection
            return judge(load, [], ())
