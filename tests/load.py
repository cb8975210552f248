"""Clients that keep a served project busy, and what came of each request."""

import asyncio
import itertools
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
from servers import ACCOUNT, control, free_port, postgresql, psql, psql_command

KINDS = ("write", "one", "page", "one")  # what each client does in turn


TRUST = "local all all trust\nhost all all 127.0.0.1/32 trust\n"


@dataclass(frozen=True)
class Stage:
    """An installed project and a PostgreSQL with its tables; `environment` is to serve it in."""

    project: Path
    directory: Path
    port: int

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{self.port}/postgres",
            "DATABASE_URL_SYNC": (
                f"postgresql://postgres@/postgres?host={self.directory}&port={self.port}"
            ),
            "SHUTDOWN_DELAY": "0",
        }

    def alembic(self, *arguments: str) -> None:
        command = [str(self.project / ".venv/bin/alembic"), *arguments]
        subprocess.run(
            command, cwd=self.project, env=self.environment, check=True, capture_output=True
        )

    def psql(self, script: str) -> str:
        return psql(self.directory, self.port, script)

    def restart(self, mode: str) -> None:
        control(self.directory, "restart", f"--mode={mode}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While the block runs, whatever uses items waits."""
        command = psql_command(self.directory, self.port)
        with subprocess.Popen(
            command, user=ACCOUNT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as session:
            assert session.stdin
            assert session.stdout
            session.stdin.write("BEGIN; LOCK items; SELECT 'locked';\n")
            session.stdin.flush()
            assert session.stdout.readline() == "locked\n"
            yield

    def waiting(self) -> int:
        """How many of the application's connections wait for a lock."""
        return int(self.psql("SELECT count(*) FROM pg_locks WHERE NOT granted"))


@contextmanager
def stage(
    project: Path, directory: Path, settings: dict[str, str] | None = None
) -> Iterator[Stage]:
    """A PostgreSQL in `directory`, migrated by an installed project."""
    directory.chmod(0o755)  # for the account that runs the server
    with postgresql(directory, TRUST, settings or {}) as port:
        stage = Stage(project, directory, port)
        stage.alembic("upgrade", "head")
        yield stage


@dataclass(frozen=True)
class Server:
    """A project that a process of its own serves; `log` is all that it prints."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end. Returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)


@contextmanager
def serve(
    project: Path,
    environment: dict[str, str],
    *options: str,
    app: str = "app.main:app",
    log: Path | None = None,
) -> Iterator[Server]:
    """uvicorn on an installed project, from where it is ready to its end by SIGTERM.

    `environment` is all that it gets: a stage's, and settings.
    """
    port = free_port()
    log = log or project / f"server-{port}.log"
    command = [str(project / ".venv/bin/python"), "-m", "uvicorn", app, f"--port={port}", *options]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=project, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_until(lambda: answers(server), 30, lambda: log.read_text()[-2000:])
        yield server
    finally:
        if process.poll() is None:
            server.stop()


def answers(server: Server) -> bool:
    assert server.process.poll() is None, server.log.read_text()[-2000:]
    try:
        return httpx.get(f"{server.url}/health/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(
    condition: Callable[[], bool], seconds: float, describe: Callable[[], object] = str
) -> None:
    """Poll a condition that other processes make true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {describe()}"
        time.sleep(0.02)


@dataclass(frozen=True)
class Answer:
    """What came of one request; without an answer `status` is 0 and `detail` the reason."""

    kind: str
    sent: float  # by time.monotonic()
    seconds: float
    status: int
    detail: str = ""

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300


@dataclass
class Load:
    """Clients that create items, read one that is known to be stored, and read pages."""

    url: str
    clients: int
    kinds: tuple[str, ...] = KINDS
    timeout: float = 60
    answers: list[Answer] = field(default_factory=list)
    acknowledged: dict[int, str] = field(default_factory=dict)  # names by id
    wrong: list[str] = field(default_factory=list)
    stopped: bool = False

    async def run(self, total: int | None = None) -> None:
        """Send requests until stopped, or `total` of them."""
        left = itertools.repeat(None) if total is None else itertools.repeat(None, total)
        limits = httpx.Limits(max_connections=self.clients)
        async with (
            httpx.AsyncClient(
                base_url=self.url, limits=limits, timeout=self.timeout, trust_env=False
            ) as http,
            asyncio.TaskGroup() as tasks,
        ):
            for number in range(self.clients):
                tasks.create_task(self.run_client(http, left, number))

    async def run_client(self, http: httpx.AsyncClient, left: Iterator[None], number: int) -> None:
        kinds = itertools.islice(itertools.cycle(self.kinds), number, None)
        for kind, _ in zip(kinds, left, strict=False):
            if self.stopped:
                return
            answer = await self.send(http, kind)
            self.answers.append(answer)
            if not answer.good:
                await asyncio.sleep(0.02)  # as a client that tries again would

    async def send(self, http: httpx.AsyncClient, kind: str) -> Answer:
        """One request, whose answer is compared with what was acknowledged before."""
        sent, name = time.monotonic(), uuid4().hex
        item = next(reversed(self.acknowledged), 0) if kind == "one" else 0
        try:
            if kind == "write":
                response = await http.post("/items", json={"name": name})
            else:
                response = await http.get(f"/items/{item}" if item else "/items?limit=20")
        except httpx.HTTPError as error:
            return Answer(kind, sent, time.monotonic() - sent, 0, repr(error))
        detail = "" if response.is_success else response.text
        answer = Answer(kind, sent, time.monotonic() - sent, response.status_code, detail)
        if not answer.good:
            return answer
        body = response.json()
        if kind == "write":
            self.acknowledged[body["id"]] = name
        expected = name if kind == "write" else self.acknowledged.get(item)
        if expected and body["name"] != expected:
            self.wrong.append(f"{kind}: {body} instead of {expected}")
        return answer

    @property
    def failed(self) -> list[Answer]:
        return [answer for answer in list(self.answers) if not answer.good]

    def wait_for(self, count: int, seconds: float = 30) -> None:
        """Wait until `count` more requests have succeeded."""
        enough = self.succeeded() + count
        wait_until(lambda: self.succeeded() >= enough, seconds, self.describe)

    def succeeded(self) -> int:
        return len(self.answers) - len(self.failed)

    def rate(self, since: float, until: float) -> float:
        """Good answers per second that arrived between two moments of time.monotonic()."""
        arrived = [answer.sent + answer.seconds for answer in self.answers if answer.good]
        return sum(since <= moment < until for moment in arrived) / (until - since)

    def lost(self) -> dict[int, str]:
        """Acknowledged writes that a walk through all pages does not meet."""
        missing, after = dict(self.acknowledged), 0
        with httpx.Client(base_url=self.url, timeout=30, trust_env=False) as http:
            while after is not None:
                page = http.get("/items", params={"limit": 100, "after": after}).json()
                for item in page["items"]:
                    if missing.get(item["id"]) == item["name"]:
                        del missing[item["id"]]
                after = page["next"]
        return missing

    def describe(self) -> str:
        """Counts in one line, failures by status."""
        kinds = Counter(answer.status or answer.detail for answer in self.failed)
        why = ", ".join(f"{count} x {status}" for status, count in kinds.most_common(5))
        return f"sent {len(self.answers)}, failed {len(self.failed)}" + (
            f" ({why})" if why else ""
        )


@contextmanager
def under_load(url: str, clients: int = 8, kinds: tuple[str, ...] = KINDS) -> Iterator[Load]:
    """Load in a thread of its own while the block runs."""
    load = Load(url, clients, kinds)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, load.run())
        try:
            load.wait_for(clients)
            yield load
        finally:
            load.stopped = True
            running.result()
