"""`DATABASE_URL_READ` of `kubernetes=yes`, with a real standby and its lag."""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from conftest import Project, bake_with, install, short_directory
from load import TRUST, Stage
from pytest_cookies.plugin import Cookies
from servers import control, postgresql, psql, standby
from serving import serve, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

ACCESS = f"{TRUST}local replication all trust\n"


@pytest.fixture(scope="module")
def project(cookies_session: Cookies, installed: Project) -> Project:
    project = bake_with(cookies_session, {"kubernetes": True}).copy(short_directory())
    (project.path / ".env").unlink()
    install(project, installed)
    return project


@dataclass
class Pair:
    """A primary, its standby, and the application on both."""

    directory: Path
    port: int
    client: httpx.Client

    def psql(self, script: str) -> str:
        return psql(self.directory, self.port, script)

    def create(self, name: str) -> str:
        answer = self.client.post("/items", json={"name": name})
        assert answer.status_code == 201
        return f"/items/{answer.json()['id']}"

    def status(self, path: str) -> int:
        return self.client.get(path).status_code


@pytest.fixture
def pair(project: Project) -> Iterator[Pair]:
    first, second = short_directory(), short_directory()
    with ExitStack() as stack:
        port = stack.enter_context(postgresql(first, ACCESS, {}))
        stage = Stage(project.path, first, port)
        stage.alembic("upgrade", "head")
        read_port = stack.enter_context(standby(second, first, port))
        hosts = f"127.0.0.1:{read_port},127.0.0.1:{port}"
        url = f"postgresql://postgres@{hosts}/postgres?target_session_attrs=prefer-standby"
        env = stage.urls | {"DATABASE_URL_READ": url}
        server = stack.enter_context(serve(project.path, env=env))
        client = stack.enter_context(httpx.Client(base_url=server.url, timeout=30))
        yield Pair(second, read_port, client)


def test_reader_is_behind_while_the_standby_lags(pair: Pair) -> None:
    """`Session` is not, and the service stays ready."""
    seen = pair.create("seen")
    wait_until(lambda: pair.status(seen) == 200)
    pair.psql("SELECT pg_wal_replay_pause()")
    unseen = pair.create("unseen")
    assert pair.status(unseen) == 404
    assert pair.client.patch(unseen, json={"description": "x"}).status_code == 200
    assert pair.status(unseen) == 404
    assert pair.status("/health/ready") == 200
    pair.psql("SELECT pg_wal_replay_resume()")
    wait_until(lambda: pair.status(unseen) == 200)


def test_without_the_standby_the_primary_is_read(pair: Pair) -> None:
    """By the next request: its connection is found to be closed, and replaced."""
    path = pair.create("kept")
    wait_until(lambda: pair.status(path) == 200)
    control(pair.directory, "stop", "--mode=immediate")
    try:
        assert pair.status(path) == 200
        assert pair.status(pair.create("new")) == 200
        assert pair.status("/health/ready") == 200
    finally:
        control(pair.directory, "start")
