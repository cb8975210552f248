"""A project, served by real processes, outlives faults of its database and its clients."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import survival
from conftest import Project, short_directory
from load import Stage, stage
from serving import wait_until
from survival import Outcome

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(installed: Project) -> Iterator[Stage]:
    """A PostgreSQL for this module. Its items are those that earlier tests left."""
    with stage(installed.path, short_directory()) as prepared:
        yield prepared


EXHAUSTIVE = pytest.mark.exhaustive
SCENARIOS: dict[str, Any] = {
    "restart": lambda stage: survival.restart(stage, "fast"),
    "crash": lambda stage: survival.restart(stage, "immediate"),
    "half-open connection": pytest.param(survival.half_open, marks=EXHAUSTIVE),  # four timeouts
    "pool exhausted": survival.exhausted,
    "statement timeout": survival.overtime,
    "clients that leave": survival.abandoned,
    "migrations": pytest.param(survival.migrated, marks=EXHAUSTIVE),
    "SIGTERM": survival.rolling,
    "SIGTERM, two workers": pytest.param(
        lambda stage: survival.rolling(stage, workers=2), marks=EXHAUSTIVE
    ),
}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_scenario_breaks_no_promise(prepared: Stage, scenario: Callable[[Stage], Outcome]) -> None:
    counts, faults = scenario(prepared)
    assert faults == [], counts


def test_idle_connection_has_keepalive(prepared: Stage) -> None:
    """Linux lists the timer of each connection, and 02 is that of keepalive."""

    def timers() -> set[str]:
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        remote = f":{prepared.port:04X}"
        return {line[5][:2] for line in lines if line[2].endswith(remote) and line[3] == "01"}

    with prepared.serve() as server:
        assert httpx.get(f"{server.url}/health/ready").status_code == 200
        wait_until(lambda: timers() == {"02"}, timers)
