"""A project's own PostgreSQL, and clients that send requests to the served project."""

import asyncio
import itertools
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
from servers import ACCOUNT, control, postgresql, psql, psql_command
from serving import ENVIRONMENT, Server, serve, wait_until

KINDS = ("write", "one", "page", "one")  # the requests of each client, in turn

TRUST = "local all all trust\nhost all all 127.0.0.1/32 trust\n"


@dataclass(frozen=True)
class Stage:
    """An installed project, and a PostgreSQL that its migrations have run on."""

    project: Path
    directory: Path
    port: int

    @property
    def urls(self) -> dict[str, str]:
        return {
            "DATABASE_URL": f"postgresql://postgres@127.0.0.1:{self.port}/postgres",
            "DATABASE_URL_SYNC": (
                f"postgresql://postgres@/postgres?host={self.directory}&port={self.port}"
            ),
        }

    def serve(
        self, *options: str, workers: int = 1, **settings: str
    ) -> AbstractContextManager[Server]:
        """Serve the project. `settings` are environment variables."""
        return serve(self.project, *options, env=self.urls | settings, workers=workers)

    def alembic(self, *arguments: str) -> None:
        command = [str(self.project / ".venv/bin/alembic"), *arguments]
        env = ENVIRONMENT | self.urls
        subprocess.run(command, cwd=self.project, env=env, check=True, capture_output=True)

    def psql(self, script: str) -> str:
        return psql(self.directory, self.port, script)

    def restart(self, mode: str) -> None:
        control(self.directory, "restart", f"--mode={mode}")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold a lock on the table items during the block: whatever uses the table waits."""
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
        """Return the number of connections that wait for a lock."""
        return int(self.psql("SELECT count(*) FROM pg_locks WHERE NOT granted"))


@contextmanager
def stage(project: Path, directory: Path) -> Iterator[Stage]:
    """Start a PostgreSQL in `directory`, migrated by an installed project."""
    directory.chmod(0o755)  # for the account that runs the server
    with postgresql(directory, TRUST, {}) as port:
        stage = Stage(project, directory, port)
        stage.alembic("upgrade", "head")
        yield stage


@dataclass(frozen=True)
class Answer:
    """The result of one request. Without a response, `status` is 0 and `detail` the reason."""

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
    """Clients that create items, read items that they have created, and read pages."""

    url: str
    clients: int
    kinds: tuple[str, ...] = KINDS
    timeout: float = 60
    pause: float = 0  # seconds of each client after an answer
    answers: list[Answer] = field(default_factory=list)
    acknowledged: dict[int, str] = field(default_factory=dict)  # names by id
    wrong: list[str] = field(default_factory=list)
    stopped: bool = False

    async def run(self, total: int | None = None) -> None:
        """Send requests until stopped, or `total` of them."""
        left = itertools.repeat(None) if total is None else itertools.repeat(None, total)
        # uvicorn closes idle connections after 5 seconds, and a request must not meet that.
        limits = httpx.Limits(max_connections=self.clients, keepalive_expiry=1)
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
            # A client that tries again waits a little.
            await asyncio.sleep(self.pause if answer.good else 0.02)

    async def send(self, http: httpx.AsyncClient, kind: str) -> Answer:
        """Send one request and compare its answer with the writes that were acknowledged."""
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
            unknown = "Read whether" in detail  # a blind retry might store the change twice
            if answer.status == 503 and unknown == ("Retry-After" in response.headers):
                without = "with" if unknown else "without"
                self.wrong.append(f"503 {without} Retry-After: {detail}")
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

    def wait_for(self, count: int) -> None:
        """Wait until `count` more requests have succeeded."""
        enough = self.succeeded() + count
        wait_until(lambda: self.succeeded() >= enough, self.describe)

    def succeeded(self) -> int:
        return len(self.answers) - len(self.failed)

    def rate(self, since: float, until: float) -> float:
        """Return the good answers per second between two moments of time.monotonic()."""
        arrived = [answer.sent + answer.seconds for answer in self.answers if answer.good]
        return sum(since <= moment < until for moment in arrived) / (until - since)

    def lost(self) -> dict[int, str]:
        """Return the acknowledged writes that are on no page."""
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
        """Return the counts in one line, failures by status."""
        kinds = Counter(answer.status or answer.detail for answer in self.failed)
        why = ", ".join(f"{count} x {status}" for status, count in kinds.most_common(5))
        return f"sent {len(self.answers)}, failed {len(self.failed)}" + (
            f" ({why})" if why else ""
        )


@contextmanager
def under_load(
    url: str,
    clients: int = 8,
    kinds: tuple[str, ...] = KINDS,
    pause: float = 0,
    timeout: float = 60,
) -> Iterator[Load]:
    """Send requests from another thread during the block."""
    load = Load(url, clients, kinds, timeout=timeout, pause=pause)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, load.run())
        try:
            load.wait_for(clients)
            yield load
        finally:
            load.stopped = True
            running.result()
