"""Benchmarks: each is a ratio, a time or a count of whole processes, measured in one run.

Usage: uv run python tests/benchmarks/run.py NAME...
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import accounts
import budgets
import jobs
import living
import measure
import migrating
import projects
import scale
import speed
import surviving
import telemetry
import withstanding

Benchmark = Callable[..., None]
# Each gets an empty directory.
ALONE: list[Benchmark] = [
    *budgets.BENCHMARKS,
    *projects.BENCHMARKS,
    *surviving.BENCHMARKS,
    jobs.kills,
]
# Each gets a project, and runs inside its `uv run dev`.
INSIDE: list[Benchmark] = [
    *migrating.BENCHMARKS,
    *speed.BENCHMARKS,
    *accounts.BENCHMARKS,
    *scale.BENCHMARKS,
    *living.BENCHMARKS,
    *withstanding.BENCHMARKS,
    *jobs.BENCHMARKS,
    *telemetry.BENCHMARKS,
]
ANSWERS = {  # else the default project
    "jobs": ["jobs=yes"],
    "startup_with_options": measure.EVERYTHING,
    "telemetry": ["telemetry=yes"],
}


def main() -> int:
    benchmarks = {benchmark.__name__: benchmark for benchmark in ALONE + INSIDE}
    if "--in" in sys.argv:
        name, _, project, *numbers = sys.argv[1:]
        benchmarks[name](Path(project), *map(int, numbers))
    elif unknown := [name for name in sys.argv[1:] if name not in benchmarks]:
        sys.exit(f"no benchmark is called {', '.join(unknown)}; without a name, all are listed")
    elif not sys.argv[1:]:
        print("Name one or more:")
        for name, benchmark in benchmarks.items():
            print(f"  {name:18} {(benchmark.__doc__ or '').splitlines()[0]}")
    else:
        run([benchmark for name, benchmark in benchmarks.items() if name in sys.argv[1:]])
    return bool(measure.missed)


def run(chosen: list[Benchmark]) -> None:
    for benchmark in chosen:
        with tempfile.TemporaryDirectory() as directory:
            if benchmark in ALONE:
                benchmark(Path(directory))
            else:
                run_inside(Path(directory), benchmark.__name__)


def run_inside(work: Path, name: str) -> None:
    """Run this program again inside `uv run dev`, whose URLs name one database."""
    project = measure.generate(work, measure.TEMPLATE, *ANSWERS.get(name, []))
    command = ["uv", "run", "--quiet", "dev", sys.executable, __file__, name, "--in", str(project)]
    if subprocess.run(command, cwd=project, env=measure.ENVIRONMENT).returncode:
        measure.missed.append(name)


if __name__ == "__main__":
    sys.exit(main())
