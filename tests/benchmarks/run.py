"""Figures, each a ratio or a time of whole processes, measured in one run.

Usage: uv run python tests/benchmarks/run.py NAME
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import living
import migrating
import speed
from measure import ENVIRONMENT, TEMPLATE, answers, compare, generate, inside, report, run


def generation(work: Path) -> None:
    """Cookiecutter with the hooks ÷ the same files without them (at most 1.25)."""
    bare, product = work / "bare", "{{cookiecutter.project_slug}}"
    shutil.copytree(TEMPLATE / product, bare / product)
    shutil.copy(TEMPLATE / "cookiecutter.json", bare)
    compare(
        "with hooks",
        lambda: generate(work / "a", TEMPLATE),
        "without",
        lambda: generate(work / "b", bare),
        limit=1.25,
    )


def first_response(work: Path) -> None:
    """Seconds from `cookiecutter` to the first 200 from /items (at most 15)."""
    start = time.perf_counter()
    project = generate(work, TEMPLATE)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    command = ["uv", "run", "--quiet", "dev", "--port", str(port)]
    server = subprocess.Popen(command, cwd=project, env=ENVIRONMENT)
    try:
        while not answers(f"http://127.0.0.1:{port}/items"):
            if server.poll() is not None or time.perf_counter() - start > 60:
                sys.exit("the application did not answer")
            time.sleep(0.02)
        report("first 200 from /items", time.perf_counter() - start, 15, "s")
    finally:
        server.terminate()
        server.wait()


def suite(work: Path) -> None:
    """Seconds that the generated project's suite takes (at most 15)."""
    project = generate(work, TEMPLATE)
    run(["uv", "sync", "--quiet"], project)
    for options in ([], ["-n", "2"]):
        start = time.perf_counter()
        run(["uv", "run", "--quiet", "pytest", "-q", *options], project)
        report(" ".join(["pytest", *options]), time.perf_counter() - start, 15, "s")


def recipes(work: Path) -> None:
    """A writer's longest stall in each recipe of the README, 1,000,000 rows (at most 250 ms)."""
    project = generate(work, TEMPLATE)
    for mode in ("naive", "stall"):
        script = ["python", str(TEMPLATE / "tests" / "recipes.py"), mode, "1000000"]
        command = ["uv", "run", "--quiet", "dev", *script]
        with subprocess.Popen(
            command, cwd=project, env=ENVIRONMENT, stdout=subprocess.PIPE
        ) as process:
            for line in process.stdout or ():
                result = json.loads(line)
                if "error" in result:
                    sys.exit(result["error"])
                longest = max(result["stalls"])
                if mode == "naive":
                    print(f"{result['recipe']}, without it: {longest} ms")
                else:
                    report(result["recipe"], longest, 250, "ms")


def survival(work: Path) -> None:
    """Requests sent, failed and lost: whatever happens to the database, migrations, SIGTERM."""
    survive(work, "survival")


def pgbouncer(work: Path) -> None:
    """Requests that fail of 20,000 through PgBouncer, with and without prepared statements (0)."""
    survive(work, "pgbouncer")


def survive(work: Path, name: str) -> None:
    work.chmod(0o755)  # for the account that runs PostgreSQL
    project = generate(work, TEMPLATE)
    (project / ".env").unlink()
    run(["uv", "sync", "--quiet"], project)
    script = [sys.executable, str(TEMPLATE / "tests" / "survival.py"), str(project), name]
    if subprocess.run(script).returncode:
        sys.exit("a promise was broken")


BENCHMARKS = [generation, first_response, suite, recipes, survival, pgbouncer]


def main() -> None:
    modules = [migrating, speed, living]
    every = BENCHMARKS + [benchmark for module in modules for benchmark in module.BENCHMARKS]
    chosen = [benchmark for benchmark in every if benchmark.__name__ in sys.argv[1:]]
    if not chosen:
        print("Name one or more:")
        for benchmark in every:
            print(f"  {benchmark.__name__:18} {(benchmark.__doc__ or '').splitlines()[0]}")
    for benchmark in chosen:
        with tempfile.TemporaryDirectory() as directory:
            if benchmark in BENCHMARKS:
                benchmark(Path(directory))
            else:
                inside(Path(directory), benchmark)


if __name__ == "__main__":
    main()
