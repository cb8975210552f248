"""SIGTERM while real processes serve, which a deployment sends to each of them."""

import asyncio
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from itertools import cycle

import httpx
import pytest
from conftest import Project, short_directory
from load import Server, Stage, serve, stage, under_load, wait_until
from servers import free_port

pytestmark = pytest.mark.slow

GRACE = 10  # seconds from SIGTERM to SIGKILL, as container engines have it


class Balancer:
    """Spreads connections over the servers that were ready when last asked.

    One that spreads requests is easier to leave: here a client may keep its connection.
    """

    def __init__(self, servers: list[Server]) -> None:
        self.servers = servers
        self.turns = cycle(servers)
        self.ready: set[Server] = set()
        self.port = free_port()
        self.stopped = False

    async def run(self) -> None:
        limits = httpx.Limits(max_keepalive_connections=0)
        async with (
            httpx.AsyncClient(limits=limits, trust_env=False) as http,
            await asyncio.start_server(self.pass_on, "127.0.0.1", self.port),
        ):
            while not self.stopped:
                self.ready = {server for server in self.servers if await is_ready(http, server)}
                await asyncio.sleep(0.2)

    async def pass_on(self, client: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        server = next(server for server in self.turns if server in self.ready)
        port = httpx.URL(server.url).port
        source, request = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(copy(client, request), copy(source, answer))


async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await source.read(2**16):
            target.write(data)
    target.close()


async def is_ready(http: httpx.AsyncClient, server: Server) -> bool:
    try:
        return (await http.get(f"{server.url}/health/ready")).is_success
    except httpx.TransportError:
        return False


def ready(server: Server) -> httpx.Response:
    return httpx.get(f"{server.url}/health/ready", trust_env=False)


@contextmanager
def balanced(servers: list[Server]) -> Iterator[str]:
    """The address of a balancer in front of the servers."""
    balancer = Balancer(servers)
    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(asyncio.run, balancer.run())
        try:
            wait_until(lambda: len(balancer.ready) == len(servers), 10)
            yield f"http://127.0.0.1:{balancer.port}"
        finally:
            balancer.stopped = True
            running.result()


@pytest.fixture(scope="module")
def database(installed: Project) -> Iterator[Stage]:
    with stage(installed.path, short_directory()) as database:
        yield database


def serve_for(database: Stage, seconds: int, *options: str) -> AbstractContextManager[Server]:
    """A server that goes on for so many seconds after SIGTERM."""
    environment = database.environment | {"SHUTDOWN_DELAY": str(seconds)}
    return serve(database.project, environment, *options, log=short_directory() / "log")


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_no_request_fails_when_a_replica_ends(database: Stage, options: tuple[str, ...]) -> None:
    with ExitStack() as stack:
        replicas = [stack.enter_context(serve_for(database, 2, *options)) for _ in range(2)]
        address = stack.enter_context(balanced(replicas))
        load = stack.enter_context(under_load(address))
        load.wait_for(200)
        replicas[0].process.send_signal(signal.SIGTERM)
        wait_until(lambda: not ready(replicas[0]).is_success, 1)
        assert ready(replicas[0]).json()["detail"] == "This process is about to end."
        assert httpx.get(f"{replicas[0].url}/items", trust_env=False).is_success
        assert replicas[0].process.wait(timeout=GRACE) == 0
        load.wait_for(200)
        print(load.describe())
        assert (load.failed, load.wrong, load.lost()) == ([], [], {})


def test_a_request_in_flight_is_finished(database: Stage) -> None:
    with serve_for(database, 1) as server, ThreadPoolExecutor(1) as thread:
        with database.locked():
            answer = thread.submit(create, server, "in flight")
            wait_until(lambda: database.waiting() == 1, 5)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "Waiting for connections to close" in server.log.read_text(), 5)
        assert answer.result().status_code == 201
        assert server.process.wait(timeout=GRACE) == 0


def test_a_request_that_takes_longer_than_the_grace_is_rolled_back(database: Stage) -> None:
    with (
        serve_for(database, 1, "--timeout-graceful-shutdown", "1") as server,
        ThreadPoolExecutor(1) as thread,
        database.locked(),
    ):
        answer = thread.submit(create, server, "too long")
        wait_until(lambda: database.waiting() == 1, 5)
        assert server.stop() == 0
        assert answer.result().status_code == 500
    wait_until(lambda: database.waiting() == 0, 5)
    assert database.psql("SELECT name FROM items WHERE name = 'too long'") == ""


def create(server: Server, name: str) -> httpx.Response:
    return httpx.post(f"{server.url}/items", json={"name": name}, timeout=30, trust_env=False)


def test_a_second_sigterm_ends_at_once(database: Stage) -> None:
    with serve_for(database, 600) as server:
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not ready(server).is_success, 5)
        assert server.stop() == 0


def test_a_wrong_setting_ends_the_supervisor_too(database: Stage, installed: Project) -> None:
    """It would start new workers for ever, which fail as well."""
    command = [".venv/bin/uvicorn", "app.main:app", f"--port={free_port()}", "--workers=2"]
    wrong = database.environment | {"SHUTDOWN_DELAY": "soon"}
    result = installed.run(*command, env=wrong, check=False)
    assert "SHUTDOWN_DELAY: " in result.stderr
    assert "Traceback" not in result.stderr
    alone = installed.run(*command[:-1], env=wrong, check=False)
    assert alone.returncode != 0
