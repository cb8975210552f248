"""Helpers of the benchmarks."""

import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[2]
sys.path.append(str(TEMPLATE / "tests"))  # benchmarks share helpers with the tests

COOKIECUTTER = [sys.executable, "-m", "cookiecutter", "--no-input"]
NOT_A_USERS = {"PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"}  # set by containers and by uv
ENVIRONMENT = {name: value for name, value in os.environ.items() if name not in NOT_A_USERS}

# The limits that were missed, by name: run.py then exits with 1, after the last benchmark.
missed: list[str] = []

EVERYTHING = ["auth=accounts", "jobs=yes", "telemetry=yes", "kubernetes=yes"]


def generate(directory: Path, template: Path, *answers: str) -> Path:
    """Generate a project in `directory`, in another process. The default, but for `answers`."""
    shutil.rmtree(directory / "my-api", ignore_errors=True)
    run([*COOKIECUTTER, "--output-dir", str(directory), str(template), *answers], TEMPLATE)
    return directory / "my-api"


def install(directory: Path, *answers: str) -> Path:
    """Generate a project in `directory`, with its environment and without `.env`."""
    project = generate(directory, TEMPLATE, *answers)
    (project / ".env").unlink()
    run(["uv", "sync", "--quiet"], project)
    return project


def compare(
    name: str,
    first: Callable[[], object],
    other: str,
    second: Callable[[], object],
    limit: float,
    rounds: int = 15,
) -> None:
    """Run two actions in turns. Print the medians of their times, and report the ratio.

    An action whose time includes a preparation returns the seconds that count.
    """
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for action, into in zip((first, second), times, strict=True):
            start = time.perf_counter()
            seconds = action()
            elapsed = time.perf_counter() - start
            into.append(seconds if isinstance(seconds, float) else elapsed)
    ours, theirs = map(statistics.median, times)
    print(f"{name} {ours:.3f} s, {other} {theirs:.3f} s")
    report(f"{name} ÷ {other}", ours / theirs, limit)


def report(name: str, value: float, limit: float, unit: str = "") -> None:
    print(f"{name}: {value:.2f} {unit}".rstrip(), f"(at most {limit:g})", end=" ")
    conclude(name, value <= limit, "TOO MUCH")


def report_ratio(name: str, value: float, limit: float) -> None:
    print(f"{name}: {value:.2f} (at least {limit:g})", end=" ")
    conclude(name, value >= limit, "TOO LITTLE")


def conclude(name: str, kept: bool, otherwise: str) -> None:
    """Print the verdict, and remember a limit that was missed."""
    print("ok" if kept else otherwise)
    if not kept:
        missed.append(name)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as response:  # noqa: S310 - a loopback address
            return bool(response.status == 200)
    except urllib.error.URLError:
        return False


def run(command: list[str], directory: Path) -> None:
    subprocess.run(
        command,
        cwd=directory,
        env=ENVIRONMENT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
