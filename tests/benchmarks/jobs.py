"""Background jobs: what enqueueing costs, and how soon and how fast workers run them."""

import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles

from measure import ENVIRONMENT, TEMPLATE, generate, report
from serving import Server, wait_until
from wrk import HERE, load, prepare, rate, serve_application

BACKLOG = 100_000
DONE = "SELECT count(*) FROM jobs.pgqueuer WHERE entrypoint = 'pass' AND execute_after < now()"
SPAN = """
    SELECT extract(epoch FROM max(created) - min(created)) FROM jobs.pgqueuer_log
    WHERE entrypoint = 'pass' AND status IN ('picked', 'successful')
"""


def psql(query: str) -> str:
    command = ["psql", "-XqAt", "-U", "postgres", "-c", query]
    return subprocess.check_output(command, text=True).strip()


def command(project: Path, *words: str) -> list[str]:
    return [str(project / ".venv/bin/python"), str(HERE / "enqueueing.py"), *words]


def run(project: Path, *words: str) -> str:
    return subprocess.check_output(command(project, *words), text=True, cwd=project)


@contextmanager
def worker(project: Path) -> Iterator[Path]:
    """Run a worker during the block. Yields the file with what its jobs print."""
    with tempfile.NamedTemporaryFile() as output:
        before = listeners()
        process = subprocess.Popen(
            command(project, "work"), cwd=project, stdout=output, stderr=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: listeners() > before, seconds=30)
            yield Path(output.name)
        finally:
            process.terminate()
            process.wait(60)


def listeners() -> int:
    return int(
        psql("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%listen%'")
    )


def empty() -> None:
    psql("TRUNCATE jobs.pgqueuer, jobs.pgqueuer_log")
    psql("VACUUM ANALYZE jobs.pgqueuer")


def throughput(project: Path, workers: int) -> float:
    """Return the median of three measurements."""
    return median(measure_throughput(project, workers) for _ in range(3))


def measure_throughput(project: Path, workers: int, count: int = 5000) -> float:
    """Return the jobs per second of some workers, from the first start to the last end."""
    psql("DELETE FROM jobs.pgqueuer_log")
    with ExitStack() as stack:
        for _ in range(workers):
            stack.enter_context(worker(project))
        run(project, "fill", str(count), "0")
        wait_until(lambda: psql(DONE) == "0", seconds=300)
        time.sleep(0.5)  # the last results are written in a batch
    return count / float(psql(SPAN))


def pauses(project: Path, count: int = 300) -> tuple[float, float]:
    """Return the pause in ms from the commit to the start of the job: half, 99 of 100."""
    with worker(project) as output:
        sent = moments(run(project, "send", str(count)))
        wait_until(lambda: len(moments(output.read_text())) == count, seconds=60)
        started = moments(output.read_text())
    found = [1000 * (started[number] - sent[number]) for number in sent]
    return median(found), quantiles(found, n=100)[98]


def moments(text: str) -> dict[str, float]:
    lines = [line.split() for line in text.splitlines() if line.count(" ") == 1]
    return {number: float(moment) for number, moment in lines}


def cost(server: Server) -> float:
    """Return the time of a request that enqueues ÷ that of the same one that does not."""
    rates: dict[str, list[float]] = {"/plain": [], "/enqueued": []}
    for turn in range(20):
        for path in sorted(rates, reverse=turn % 2 == 0):  # short turns: the machine is not ours
            rates[path].append(rate(load(server, path, "create.lua", seconds=1)))
    plain, enqueueing = rates.values()
    return median(one / other for one, other in zip(plain, enqueueing, strict=True))


def jobs(project: Path) -> None:
    """What enqueueing costs (at most 1.3), jobs per second, and the pause before a job."""
    prepare(project)
    measure_cost(project, "")
    empty()
    alone = show("empty queue", project)
    for kind, delay, limit in (("that no worker knows", 0, 1.25), ("with a delay", 3600, None)):
        empty()
        fill(project, delay)
        loaded = show(f"{BACKLOG:,} jobs {kind} wait", project)
        for what, before, after in zip(FIGURES, alone, loaded, strict=True):
            ratio = before / after if "per second" in what else after / before
            if limit:
                report(f"{what}, slower by", ratio, limit)
            else:  # PostgreSQL may read all of them for each job: see docs/jobs.md
                print(f"{what}, slower by: {ratio:.2f}")
        measure_cost(project, f", while {BACKLOG:,} jobs wait")


def fill(project: Path, delay: int) -> None:
    """Let jobs wait: of another name and due, or of the measured name and due later."""
    run(project, "fill", str(BACKLOG), str(delay))
    if not delay:
        psql("UPDATE jobs.pgqueuer SET entrypoint = 'other'")
    psql("VACUUM ANALYZE jobs.pgqueuer")


def measure_cost(project: Path, condition: str) -> None:
    alone = {"WORKER_IN_SERVER": "false"}  # as in production
    with serve_application(project, "enqueueing:app", env=alone) as server:
        report(f"request that enqueues ÷ one that does not{condition}", cost(server), 1.3)


FIGURES = ["jobs per second, 1 worker", "jobs per second, 2 workers", "pause p50, ms", "p99, ms"]


def show(name: str, project: Path) -> list[float]:
    figures = [throughput(project, 1), throughput(project, 2), *pauses(project)]
    print(f"{name}: " + ", ".join(f"{k} {v:.1f}" for k, v in zip(FIGURES, figures, strict=True)))
    return figures


def kills(work: Path) -> None:
    """200 SIGKILLs of workers over 5,000 jobs (none lost), in about ten minutes."""
    project = generate(work, TEMPLATE, "jobs=yes")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(TEMPLATE / "tests/jobs", project / "tests/jobs", ignore=ignored)
    words = [
        "uv",
        "run",
        "--quiet",
        "pytest",
        "-q",
        "-s",
        "-k",
        "killed_worker_loses",
        "tests/jobs",
    ]
    subprocess.run(words, cwd=project, env=ENVIRONMENT | {"KILLS": "200"}, check=True)


BENCHMARKS: list[Callable[..., None]] = [jobs]
