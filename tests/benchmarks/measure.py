"""What the benchmarks share."""

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
COOKIECUTTER = [sys.executable, "-m", "cookiecutter", "--no-input"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}


def generate(directory: Path, template: Path) -> Path:
    """A new default project in `directory`, made in a process of its own."""
    shutil.rmtree(directory / "my-api", ignore_errors=True)
    run([*COOKIECUTTER, "--output-dir", str(directory), str(template)], TEMPLATE)
    return directory / "my-api"


def inside(work: Path, benchmark: Callable[[Path], None]) -> None:
    """Call it with a project inside `uv run dev`, where URLs name the same database."""
    project = generate(work, TEMPLATE)
    script = benchmark.__code__.co_filename
    command = ["uv", "run", "--quiet", "dev", sys.executable, script, benchmark.__name__]
    subprocess.run([*command, str(project)], cwd=project, env=ENVIRONMENT, check=True)


def compare(
    name: str,
    first: Callable[[], object],
    other: str,
    second: Callable[[], object],
    limit: float,
    rounds: int = 15,
) -> None:
    """The medians of `first` and `second`, run in turns, and their ratio.

    What takes part of its time to prepare returns the seconds that count.
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
    verdict = "ok" if value <= limit else "TOO MUCH"
    print(f"{name}: {value:.2f} {unit}".rstrip(), f"(at most {limit:g}) {verdict}")


def report_ratio(name: str, value: float, limit: float) -> None:
    verdict = "ok" if value >= limit else "TOO LITTLE"
    print(f"{name}: {value:.2f} (at least {limit:g}) {verdict}")


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
