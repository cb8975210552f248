"""Figures, each a ratio or a time of whole processes, measured in one run.

Usage: uv run python tests/benchmarks/run.py NAME
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[2]
COOKIECUTTER = [sys.executable, "-m", "cookiecutter", "--no-input"]
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}


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


def alembic_current(work: Path) -> None:
    """`alembic current` ÷ the same with Alembic's stock env.py (at most 1.6)."""
    project = generate(work, TEMPLATE)
    # Measured inside `dev`, where both find the embedded database.
    script = [sys.executable, __file__, "alembic_current_inside", str(project)]
    run(["uv", "run", "--quiet", "dev", *script], project)


def alembic_current_inside(project: Path) -> None:
    alembic = [str(project / ".venv" / "bin" / "alembic")]
    ours, stock = ["-c", str(project / "alembic.ini")], project.parent / "stock"
    run([*alembic, *ours, "upgrade", "head"], project)
    shutil.rmtree(stock, ignore_errors=True)
    stock.mkdir()
    run([*alembic, "-c", "alembic.ini", "init", "migrations"], stock)
    ini = (stock / "alembic.ini").read_text()
    url = os.environ["DATABASE_URL_SYNC"].replace("%", "%%")
    (stock / "alembic.ini").write_text(ini.replace("driver://user:pass@localhost/dbname", url))
    shutil.copytree(
        project / "alembic" / "versions", stock / "migrations" / "versions", dirs_exist_ok=True
    )
    compare(
        "ours",
        lambda: run([*alembic, *ours, "current"], project),
        "stock",
        lambda: run([*alembic, "-c", "alembic.ini", "current"], stock),
        limit=1.6,
    )


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
        ) as run:
            for line in run.stdout or ():
                result = json.loads(line)
                if "error" in result:
                    sys.exit(result["error"])
                longest = max(result["stalls"])
                if mode == "naive":
                    print(f"{result['recipe']}, without it: {longest} ms")
                else:
                    report(result["recipe"], longest, 250, "ms")


def generate(directory: Path, template: Path) -> Path:
    """A new default project in `directory`, made in a process of its own."""
    shutil.rmtree(directory / "my-api", ignore_errors=True)
    run([*COOKIECUTTER, "--output-dir", str(directory), str(template)], TEMPLATE)
    return directory / "my-api"


def compare(
    name: str,
    first: Callable[[], object],
    other: str,
    second: Callable[[], object],
    limit: float,
    rounds: int = 15,
) -> None:
    """The medians of `first` and `second`, run in turns, and their ratio."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for action, into in zip((first, second), times, strict=True):
            start = time.perf_counter()
            action()
            into.append(time.perf_counter() - start)
    ours, theirs = map(statistics.median, times)
    print(f"{name} {ours:.3f} s, {other} {theirs:.3f} s")
    report(f"{name} ÷ {other}", ours / theirs, limit)


def report(name: str, value: float, limit: float, unit: str = "") -> None:
    verdict = "ok" if value <= limit else "TOO MUCH"
    print(f"{name}: {value:.2f} {unit}".rstrip(), f"(at most {limit:g}) {verdict}")


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
        stdout=output(command),
        stderr=output(command),
    )


def output(command: list[str]) -> int | None:
    """Silence for what is measured; the benchmark that runs inside `dev` reports itself."""
    return None if __file__ in command else subprocess.DEVNULL


BENCHMARKS = [generation, first_response, alembic_current, suite, recipes]


def main() -> None:
    if sys.argv[1:2] == ["alembic_current_inside"]:
        alembic_current_inside(Path(sys.argv[2]))
        return
    chosen = [benchmark for benchmark in BENCHMARKS if benchmark.__name__ in sys.argv[1:]]
    if not chosen:
        print("Name one or more:")
        for benchmark in BENCHMARKS:
            print(f"  {benchmark.__name__:16} {benchmark.__doc__}")
    for benchmark in chosen:
        with tempfile.TemporaryDirectory() as directory:
            benchmark(Path(directory))


if __name__ == "__main__":
    main()
