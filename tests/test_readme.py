"""The README's commands, word for word, as a newcomer runs them."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest
from conftest import TEMPLATE, user_environment

README = (TEMPLATE / "README.md").read_text(encoding="utf-8")


def command_with(words: str) -> str:
    """The one line of a shell block that holds `words`."""
    blocks: list[str] = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    (line,) = [line for block in blocks for line in block.splitlines() if words in line]
    return line


def test_ci_runs_the_command_of_the_readme() -> None:
    command = command_with("uv run pytest")
    assert command == "pip install uv && uv run pytest"
    assert command in (TEMPLATE / ".ci" / "run").read_text().splitlines()


@pytest.mark.slow
def test_a_checkout_becomes_a_running_service(
    template_repository: Path, tmp_path: Path, uv_cache: str
) -> None:
    """With Python, pip and git, an empty home and nothing else."""
    command = command_with("uvx cookiecutter . ")
    assert command == (
        "pip install uv && uvx cookiecutter . --no-input && cd my-api && uv run dev"
    )
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "python"], check=True)
    environment = user_environment() | {
        "HOME": str(tmp_path / "home"),
        "PATH": f"{tmp_path / 'python' / 'bin'}:/usr/local/bin:/usr/bin:/bin",
        "UV_CACHE_DIR": uv_cache,
    }
    (tmp_path / "home").mkdir()
    shell = subprocess.Popen(
        ["sh", "-c", command],
        cwd=template_repository,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output = ""
        assert shell.stdout
        for line in shell.stdout:
            output += line
            if "Application startup complete" in line:
                break
        assert "is ready. Next:" in output
        for path in ("/docs", "/items", "/health/ready"):
            assert httpx.get(f"http://localhost:8000{path}").status_code == 200, output
    finally:
        children = psutil.Process(shell.pid).children(recursive=True)
        os.killpg(shell.pid, signal.SIGINT)  # as Ctrl-C does
        _, alive = psutil.wait_procs(children, timeout=30)
        shell.communicate(timeout=30)
    assert alive == []
    assert not (template_repository / "my-api" / ".postgres" / "data" / "postmaster.pid").exists()
