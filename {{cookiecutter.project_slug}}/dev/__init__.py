"""`uv run dev`: the application, or any command, on an embedded PostgreSQL."""

import argparse
import atexit
import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = [signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]


def main() -> None:
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    die_with_parent()
    if (project := find_project()) != ROOT:
        os.environ["PYTHONPATH"] = f"{project}{os.pathsep}{os.environ.get('PYTHONPATH', project)}"
        sys.exit(run([sys.executable, "-P", "-m", "dev", *sys.argv[1:]]))
    try:
        from dev.postgres import data_directory, postgres, set_environment
    except ModuleNotFoundError as error:
        sys.exit(f"dev: the development dependency {error.name} is missing: run `uv sync`")
    arguments = parse_arguments()
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]  # they name another server
    with postgres(data_directory()) as server:
        for number in SIGNALS:
            atexit.register(signal.signal, number, signal.SIG_IGN)  # before the wheel's clean-up
        set_environment(server)
        sys.exit(run(arguments.command) if arguments.command else serve(arguments.port))


def find_project() -> Path:
    """The project around the working directory: those of a uv workspace share one `dev`."""

    def is_project(path: Path) -> bool:
        return all((path / name).exists() for name in ("alembic.ini", "dev/__init__.py"))

    for path in filter(is_project, (Path.cwd(), *Path.cwd().parents)):
        return path
    installed = {str(Path(path).resolve()) for path in sys.path if is_project(Path(path))}
    if len(installed) > 1:
        sys.exit(f"dev: run this inside one of the projects {', '.join(sorted(installed))}")
    return ROOT


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev", description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="default: 8000")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND ...")
    arguments = parser.parse_args()
    if arguments.port not in range(2**16):
        parser.error(f"argument --port: {arguments.port} is not a number from 0 to 65535")
    return arguments


def serve(port: int) -> int:
    from alembic.config import main as alembic

    if sys.platform != "win32" and os.geteuid() == 0:
        print("dev: running as root: all users may now read the directories above .postgres")
    alembic(["upgrade", "head"])  # exits if it fails
    options = [f"--port={port}", "--reload", f"--reload-dir={ROOT / 'app'}", f"--app-dir={ROOT}"]
    limits = ["--http=app.web.server:Protocol", "--timeout-graceful-shutdown=0"]  # open streams
    return run([sys.executable, "-m", "uvicorn", "app.main:app", *options, *limits])


def run(command: list[str]) -> int:
    """Run `command` to its end, or until a signal terminates it. Returns its exit status."""
    prepare = None if sys.platform == "win32" else die_with_parent
    try:
        process = subprocess.Popen(command, preexec_fn=prepare)  # noqa: S603 - the user's own
    except OSError as error:
        print(f"dev: cannot run {command[0]}: {error.strerror}", file=sys.stderr)
        return 127
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: process.terminate())
    if sys.stdin.isatty():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal sends it to the command too
    return status if (status := process.wait()) >= 0 else 128 - status


def die_with_parent() -> None:
    """On Linux, terminate this process when its parent is killed, which frees the port."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
