"""SIGTERM while real processes serve, which a deployment sends to each of them."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager

import httpx
import pytest
from conftest import Project, short_directory
from load import Server, Stage, serve, stage, wait_until
from servers import free_port
from survival import END, is_ending, rolling

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database(installed: Project) -> Iterator[Stage]:
    with stage(installed.path, short_directory()) as database:
        yield database


def serve_for(database: Stage, seconds: int, *options: str) -> AbstractContextManager[Server]:
    """A server that goes on for so many seconds after SIGTERM."""
    environment = database.environment | {"SHUTDOWN_DELAY": str(seconds)}
    return serve(database.project, environment, *options, log=short_directory() / "log")


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_no_request_fails_when_a_replica_is_replaced(
    database: Stage, options: tuple[str, ...]
) -> None:
    counts, faults = rolling(database, *options)
    assert faults == [], counts


def test_a_request_in_flight_is_finished(database: Stage) -> None:
    with serve_for(database, 1) as server, ThreadPoolExecutor(1) as thread:
        with database.locked():
            answer = thread.submit(create, server, "in flight")
            wait_until(lambda: database.waiting() == 1, 5)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "Waiting for connections to close" in server.log.read_text(), 5)
        assert answer.result().status_code == 201
        assert server.process.wait(timeout=END) == 0


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
        wait_until(lambda: is_ending(server), 5)
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
