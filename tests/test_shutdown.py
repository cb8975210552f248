"""SIGTERM, which a deployment sends to every process that serves."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import Project, short_directory
from load import Stage, stage
from serving import Server, wait_until
from survival import END, is_ending

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def database(installed: Project) -> Iterator[Stage]:
    with stage(installed.path, short_directory()) as database:
        yield database


def test_request_in_flight_is_finished(database: Stage) -> None:
    with database.serve(SHUTDOWN_DELAY_SECONDS="1") as server, ThreadPoolExecutor(1) as thread:
        with database.locked():
            answer = thread.submit(create, server, "in flight")
            wait_until(lambda: database.waiting() == 1)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: "Waiting for connections to close" in server.log.read_text())
        assert answer.result().status_code == 201
        assert server.process.wait(timeout=END) == 0


def test_request_beyond_the_graceful_timeout_is_rolled_back(database: Stage) -> None:
    with (
        database.serve("--timeout-graceful-shutdown=1", SHUTDOWN_DELAY_SECONDS="1") as server,
        ThreadPoolExecutor(1) as thread,
        database.locked(),
    ):
        answer = thread.submit(create, server, "too long")
        wait_until(lambda: database.waiting() == 1)
        assert server.stop() == 0
        assert answer.result().status_code == 500
    wait_until(lambda: database.waiting() == 0)
    assert database.psql("SELECT name FROM items WHERE name = 'too long'") == ""


def create(server: Server, name: str) -> httpx.Response:
    return httpx.post(f"{server.url}/items", json={"name": name}, timeout=30, trust_env=False)


def test_second_sigterm_skips_the_delay(database: Stage) -> None:
    with database.serve(SHUTDOWN_DELAY_SECONDS="600") as server:
        server.process.send_signal(signal.SIGTERM)
        wait_until(lambda: is_ending(server))
        assert server.stop() == 0


def test_wrong_setting_ends_the_supervisor_too(database: Stage, installed: Project) -> None:
    """Otherwise it would start new workers forever."""
    command = [".venv/bin/uvicorn", "app.main:app", "--workers=2"]
    wrong = database.urls | {"SHUTDOWN_DELAY_SECONDS": "soon"}
    result = installed.run(*command, env=wrong, check=False)
    assert "SHUTDOWN_DELAY_SECONDS: " in result.stderr
    assert "Traceback" not in result.stderr
    alone = installed.run(*command[:-1], env=wrong, check=False)
    assert alone.returncode != 0
