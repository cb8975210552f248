"""A project that is served by processes of its own."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from servers import CLOSED_PORT, free_port

UVICORN = ("uvicorn", "app.main:app", "--port=PORT")
# A database that does not answer, and no delay at the end.
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "DATABASE_URL": f"postgresql://app@127.0.0.1:{CLOSED_PORT}/app",
    "SHUTDOWN_DELAY_SECONDS": "0",
}


@dataclass(frozen=True)
class Server:
    """A running server; `log` is everything that it prints."""

    url: str
    process: psutil.Popen
    log: Path

    @property
    def host(self) -> str:
        return self.url.partition("//")[2].rpartition(":")[0]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def stop(self) -> int:
        """Send SIGTERM and return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=60)

    def cpu(self) -> float:
        """Return the seconds of processor time so far, with those of the workers."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(sum(process.cpu_times()[:2]) for process in family)


@contextmanager
def serve(
    project: Path,
    *options: str,
    command: tuple[str, ...] = UVICORN,
    env: Mapping[str, str] | None = None,
    workers: int = 1,
) -> Iterator[Server]:
    """Run a command of an installed project until the end of the block.

    The command is one of the project's environment. PORT in it stands for a free port. The
    process gets ENVIRONMENT and `env` as its environment.
    """
    port = free_port()
    words = [*command, *options, *([f"--workers={workers}"] if workers > 1 else [])]
    program, *arguments = [word.replace("PORT", str(port)) for word in words]
    log = project.parent / f"server-{port}.log"
    with log.open("wb") as output:
        process = psutil.Popen(
            [str(project / ".venv/bin" / program), *arguments],
            cwd=project,
            env=ENVIRONMENT | dict(env or {}),
            stdout=output,
            stderr=output,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        wait_until(lambda: has_started(server, workers), log.read_text)
        yield server
    finally:
        if process.poll() is None:
            server.stop()


def has_started(server: Server, workers: int) -> bool:
    output = server.log.read_text()
    assert server.process.poll() is None, output
    started = output.count("Application startup complete")
    return started == workers and "Uvicorn running" in output


def wait_until(
    condition: Callable[[], bool], describe: Callable[[], object] = str, seconds: float = 60
) -> None:
    """Poll a condition that other processes make true, on a slow machine too."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {describe()}"
        time.sleep(0.02)
