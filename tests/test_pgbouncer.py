"""PgBouncer in transaction mode, where each transaction may run on another connection."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from conftest import Project, short_directory
from load import stage
from servers import binary, pgbouncer, run_as_account
from serving import wait_until
from survival import pooled

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "prepared",
    [pytest.param(0, marks=pytest.mark.exhaustive), 200],
    ids=["without", "with prepared statements"],
)
def test_no_request_fails(installed: Project, prepared: int) -> None:
    with stage(installed.path, short_directory()) as prepared_stage:
        counts, faults = pooled(prepared_stage, 1500, prepared)
    assert faults == [], counts


def clients(port: int) -> set[str]:
    """The ports of PgBouncer's clients, without this one."""
    connection = ["--host=127.0.0.1", f"--port={port}", "--username=postgres", "pgbouncer"]
    rows = run_as_account(binary("psql"), *connection, "-XqAt", "-c", "SHOW CLIENTS").splitlines()
    return {row.split("|")[5] for row in rows if row.split("|")[2] != "pgbouncer"}


def test_slow_statement_is_504_and_costs_no_other_connection(installed: Project) -> None:
    """PgBouncer answers, so the other connections are good."""
    place = short_directory()
    with stage(installed.path, place) as database, pgbouncer(place, database.port, 4) as port:
        url = database.urls["DATABASE_URL"].replace(str(database.port), str(port))
        with (
            database.serve(
                DATABASE_URL=url,
                DATABASE_POOLER="pgbouncer",
                DATABASE_STATEMENT_TIMEOUT_SECONDS="3",
            ) as server,
            httpx.Client(base_url=server.url, timeout=30) as http,
            ThreadPoolExecutor() as threads,
        ):
            with database.locked():  # so that each request opens a connection
                waiting = [threads.submit(http.get, "/items") for _ in range(3)]
                wait_until(lambda: database.waiting() == 3)
            assert [answer.result().status_code for answer in waiting] == [200] * 3
            before = clients(port)
            with database.locked():
                response = http.get("/items")
            assert (response.status_code, "retry-after" in response.headers) == (504, False)
            assert http.get("/items").status_code == 200
            wait_until(lambda: len(before - clients(port)) == 1)
            assert len(before) >= 3
