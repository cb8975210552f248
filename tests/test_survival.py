"""A generated project, served by real processes, outlives what happens to its database."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import survival
from conftest import Project, short_directory
from load import Stage, serve, stage, wait_until
from survival import Outcome

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def prepared(installed: Project) -> Iterator[Stage]:
    """A PostgreSQL for this module, whose items are whatever the tests before have left."""
    with stage(installed.path, short_directory()) as prepared:
        yield prepared


SCENARIOS: dict[str, Callable[[Stage], Outcome]] = {
    "restart": lambda stage: survival.restart(stage, "fast"),
    "crash": lambda stage: survival.restart(stage, "immediate"),
    "half-open link": survival.half_open,
    "pool exhausted": survival.exhausted,
    "queries over their time": survival.overtime,
    "clients that leave": survival.cancelled,
    "migrations": survival.migrated,
}


@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=SCENARIOS)
def test_it_survives(prepared: Stage, scenario: Callable[[Stage], Outcome]) -> None:
    counts, faults = scenario(prepared)
    assert faults == [], counts


def test_an_idle_link_is_kept_alive(prepared: Stage) -> None:
    """By the kernel: of an established connection it then shows a timer of the second kind."""

    def timers() -> set[str]:
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        remote = f":{prepared.port:04X}"
        return {line[5][:2] for line in lines if line[2].endswith(remote) and line[3] == "01"}

    with serve(prepared.project, prepared.environment):
        wait_until(lambda: timers() == {"02"}, 10, timers)
