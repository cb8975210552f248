"""Generation on odd machines and at odd moments: it works, or says why and leaves no trace."""

import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TEMPLATE, Project, commit, cookiecutter, faults

COMMAND = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input"]


def test_existing_directory_is_refused_without_f(tmp_path: Path) -> None:
    (tmp_path / "my-api").mkdir()
    result = cookiecutter(tmp_path)
    assert result.returncode != 0
    assert 'my-api" directory already exists' in result.stdout + result.stderr
    assert list((tmp_path / "my-api").iterdir()) == []


def test_fault_of_the_template_leaves_no_new_directory(
    tmp_path: Path, template_repository: Path
) -> None:
    line = "prepend_sys_path = %(here)s"
    product = template_repository / "{{cookiecutter.project_slug}}"
    Project(product).replace("alembic.ini", line, "")
    (tmp_path / "target").mkdir()
    command = [sys.executable, "-m", "cookiecutter", str(template_repository), "--no-input"]
    result = subprocess.run(command, cwd=tmp_path / "target", capture_output=True, text=True)
    assert result.returncode != 0
    assert f"alembic.ini: needs the line {line}" in result.stderr
    assert list((tmp_path / "target").iterdir()) == []


def test_half_a_project_is_refused_until_it_is_removed(tmp_path: Path) -> None:
    """The generation is killed. No git could restore the files that it leaves."""
    target = tmp_path / "my-api"
    process = subprocess.Popen(COMMAND, cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while not (target / "pyproject.toml").exists() and time.monotonic() < deadline:
        os.sched_yield()
    process.kill()
    process.wait()
    result = cookiecutter(tmp_path, "-f")
    assert result.returncode != 0
    assert f"{target}: git must be able to restore it as it is" in result.stderr
    shutil.rmtree(target)
    result = cookiecutter(tmp_path)
    assert result.returncode == 0, result.stderr
    assert faults(target) == []


def test_full_disk_is_named(tmp_path: Path) -> None:
    """A limit on the size of a file stands for it."""
    result = subprocess.run(
        COMMAND,
        cwd=tmp_path,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},  # the limit would cut such files
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert result.returncode != 0
    assert "File too large" in result.stdout + result.stderr


def test_modules_in_the_temporary_directory_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cookiecutter runs the hooks from there, and Python looks beside a script first."""
    modules = tmp_path / "tmp"
    modules.mkdir()
    for name in sys.stdlib_module_names:
        (modules / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')")
    monkeypatch.setenv("TMPDIR", str(modules))
    result = cookiecutter(tmp_path)
    assert result.returncode == 0, result.stderr
    commit(tmp_path / "my-api")  # then git is asked
    result = cookiecutter(tmp_path, "-f")
    assert result.returncode == 0, result.stderr


def test_directory_without_write_permission_is_named(tmp_path: Path) -> None:
    result = cookiecutter(tmp_path, "--output-dir", "/proc/nowhere")
    assert result.returncode != 0
    assert "/proc/nowhere" in result.stdout + result.stderr


@pytest.mark.parametrize("name", ["日本語 ünd a'b\"c $HOME", "-dash"])
def test_any_directory_works(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    directory.mkdir()
    result = cookiecutter(directory)
    assert result.returncode == 0, result.stderr
    assert faults(directory / "my-api") == []
    (command,) = [line for line in result.stdout.splitlines() if line.startswith("  cd ")]
    command += " && pwd"
    shown = subprocess.run(["sh", "-euc", command], capture_output=True, text=True, check=True)
    assert shown.stdout == f"{directory}/my-api\n"


def test_symbolic_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert cookiecutter(tmp_path, "--output-dir", "link").returncode == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "my-api").symlink_to(tmp_path / "elsewhere")
    assert cookiecutter(tmp_path, "-f").returncode == 0
    for directory in (tmp_path / "real" / "my-api", tmp_path / "elsewhere"):
        assert faults(directory) == []


def test_env_is_private_under_any_umask(tmp_path: Path) -> None:
    subprocess.run(COMMAND, cwd=tmp_path, check=True, umask=0)
    assert (tmp_path / "my-api" / ".env").stat().st_mode & 0o777 == 0o600


def test_generation_needs_no_home_no_path_and_no_network(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path / "empty"), "https_proxy": "http://127.0.0.1:1"}
    result = subprocess.run(COMMAND, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert faults(tmp_path / "my-api") == []


def test_interrupt_is_reported(tmp_path: Path) -> None:
    process = subprocess.Popen(
        COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "my-api").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    if process.returncode == 0:
        pytest.skip("it ended before the signal came")
    assert process.returncode != 0
    assert "Aborted" in errors or "KeyboardInterrupt" in output + errors
