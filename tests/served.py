"""A generated application, served as its user would serve it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread

from conftest import Project, user_environment
from servers import CLOSED_PORT, free_port

NO_DATABASE = {"DATABASE_URL": f"postgresql://app@127.0.0.1:{CLOSED_PORT}/app"}


@dataclass
class Served:
    """A server: where it is and, when it has ended, all that it has written."""

    url: str
    lines: list[str] = field(default_factory=list)


@contextmanager
def serve(
    project: Project,
    *command: str,
    env: dict[str, str] | None = None,
    processes: int = 1,
) -> Iterator[Served]:
    """Run `command`, in which PORT stands for a free one, until so many processes serve."""
    port = free_port()
    served, ready = Served(f"http://127.0.0.1:{port}"), Event()

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            served.lines.append(line)
            output = "".join(served.lines)
            started = output.count("Application startup complete")
            if started == processes and "Uvicorn running" in output:
                ready.set()
        ready.set()

    with subprocess.Popen(
        ["uv", "run", "--quiet", *(word.replace("PORT", str(port)) for word in command)],
        cwd=project.path,
        env=user_environment() | NO_DATABASE | (env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        reader = Thread(target=read)
        reader.start()
        try:
            assert ready.wait(timeout=60)
            assert process.poll() is None, "".join(served.lines)
            yield served
        finally:
            process.terminate()
            process.wait(timeout=30)
            reader.join()
