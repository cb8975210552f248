"""Faults of the database, migrations and restarts while clients send requests."""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import hosts as on_hosts
import manifests
import psutil
import pytest
import survival as scenarios
from load import Stage, stage
from measure import TEMPLATE, generate, install, missed
from survival import Outcome


def survival(work: Path) -> None:
    """Requests sent, failed and lost during faults of the database, migrations and SIGTERM."""
    play(
        work,
        {
            "restart fast": lambda stage: scenarios.restart(stage, "fast", 5, 0.8),
            "restart immediate": lambda stage: scenarios.restart(stage, "immediate", 5, 0.8),
            "half-open connections": lambda stage: scenarios.half_open(stage, 16, 2),
            "pool exhausted": lambda stage: scenarios.exhausted(stage, 50),
            "statement timeout": scenarios.overtime,
            "clients that leave": scenarios.abandoned,
            "migrations": lambda stage: scenarios.migrated(stage, 5),
            "SIGTERM": lambda stage: scenarios.rolling(stage, times=5),
            "SIGTERM, two workers": lambda stage: scenarios.rolling(stage, 2, times=5),
        },
    )


def pgbouncer(work: Path) -> None:
    """Requests that fail of 20,000 through PgBouncer, with and without prepared statements (0)."""
    play(
        work,
        {
            "without prepared statements": lambda stage: scenarios.pooled(stage, 20_000, 0),
            "with prepared statements": lambda stage: scenarios.pooled(stage, 20_000, 200),
        },
    )


def play(work: Path, chosen: dict[str, Callable[[Stage], Outcome]]) -> None:
    """Play each scenario on a server of its own."""
    work.chmod(0o755)  # for the account that runs PostgreSQL
    project = install(work)
    for title, scenario in chosen.items():
        with tempfile.TemporaryDirectory() as place:
            try:
                with stage(project, Path(place)) as prepared:
                    counts, faults = scenario(prepared)
            except pytest.skip.Exception as reason:
                counts, faults = str(reason), []
            except (AssertionError, subprocess.SubprocessError, psutil.Error) as error:
                counts, faults = "broken off", [repr(error)]
        missed.extend(faults)
        print(f"{title}: {counts}", *faults[:5], sep="\n  BROKEN: ", flush=True)


def hosts(work: Path) -> None:
    """Requests sent, failed, lost in a rollout, a partition and a failover of hosts (root)."""
    work.chmod(0o755)
    project = install(work, "kubernetes=yes")
    try:
        with (
            tempfile.TemporaryDirectory() as place,
            on_hosts.hosts(project, Path(place)) as service,
        ):
            for scenario in (on_hosts.rollout, on_hosts.partition, on_hosts.failover):
                counts, faults = scenario(*service)
                missed.extend(faults)
                print(
                    f"{scenario.__name__}: {counts}", *faults[:5], sep="\n  BROKEN: ", flush=True
                )
    except pytest.skip.Exception as reason:
        sys.exit(f"hosts: {reason}")


def connections(work: Path) -> None:
    """Sums of connections of the manifests, with and without jobs, and their limits."""
    for answers in (["kubernetes=yes"], ["kubernetes=yes", "jobs=yes"]):
        print(" ".join(answers))
        for title, terms, total, limit in manifests.sums(generate(work, TEMPLATE, *answers)):
            print(f"  {title}: {terms} = {total} of {limit}")
            if total > limit:
                missed.append(title)


BENCHMARKS = [survival, pgbouncer, hosts, connections]
