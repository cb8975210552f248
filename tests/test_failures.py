"""Odd machines and odd moments: generation works, or says why and leaves no trace."""

import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROJECT_DIRECTORY, TEMPLATE, Project, cookiecutter, faults

COMMAND = [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input"]


@pytest.mark.parametrize("answer", ["project_slug=fastapi", "description=a\tb"])
def test_a_refusal_leaves_an_existing_directory_as_it_was(tmp_path: Path, answer: str) -> None:
    directory = tmp_path / ("fastapi" if "fastapi" in answer else "my-api")
    directory.mkdir()
    (directory / "alembic.ini").write_text("mine")
    result = cookiecutter(tmp_path, "-f", answer)
    assert result.returncode != 0
    assert [path.name for path in directory.iterdir()] == ["alembic.ini"]
    assert (directory / "alembic.ini").read_text() == "mine"


def test_without_f_an_existing_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my-api").mkdir()
    result = cookiecutter(tmp_path)
    assert result.returncode != 0
    assert 'my-api" directory already exists' in result.stdout + result.stderr
    assert list((tmp_path / "my-api").iterdir()) == []


def test_a_fault_of_the_template_leaves_no_new_directory(
    tmp_path: Path, template_repository: Path
) -> None:
    product = Project(template_repository / PROJECT_DIRECTORY.name)
    product.replace("alembic.ini", "path_separator = os\n", "")
    (tmp_path / "target").mkdir()
    command = [sys.executable, "-m", "cookiecutter", str(template_repository), "--no-input"]
    result = subprocess.run(command, cwd=tmp_path / "target", capture_output=True, text=True)
    assert result.returncode != 0
    assert "Error: alembic.ini: needs the line path_separator = os" in result.stderr
    assert list((tmp_path / "target").iterdir()) == []


def test_after_a_run_that_was_killed_the_next_asks_for_a_new_directory(tmp_path: Path) -> None:
    """Half a project that git does not have cannot be told from files of the owner's."""
    process = subprocess.Popen(COMMAND, cwd=tmp_path, stdout=subprocess.DEVNULL)
    while not (tmp_path / "my-api" / "pyproject.toml").exists():
        assert process.poll() in {None, 0}
    process.kill()
    process.wait()
    result = cookiecutter(tmp_path, "-f")
    assert result.returncode != 0
    assert "Error: " in result.stderr
    assert "generate into a new directory" in result.stderr
    shutil.rmtree(tmp_path / "my-api")
    assert cookiecutter(tmp_path).returncode == 0


def test_a_disk_that_is_full_is_named(tmp_path: Path) -> None:
    """Made here by a limit on the size of a file."""
    result = subprocess.run(
        COMMAND,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert result.returncode != 0
    assert "File too large" in result.stdout + result.stderr


def test_a_target_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    result = cookiecutter(tmp_path, "--output-dir", "/proc/nowhere")
    assert result.returncode != 0
    assert "/proc/nowhere" in result.stdout + result.stderr


@pytest.mark.parametrize("name", ["with space", "日本語 ünd äöü", "a'b\"c", "$HOME", "-dash"])
def test_any_directory_will_do(tmp_path: Path, name: str) -> None:
    directory = tmp_path / name
    directory.mkdir()
    result = cookiecutter(directory)
    assert result.returncode == 0, result.stderr
    assert faults(directory / "my-api") == []


def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert cookiecutter(tmp_path, "--output-dir", "link").returncode == 0
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "my-api").symlink_to(tmp_path / "elsewhere")
    assert cookiecutter(tmp_path, "-f").returncode == 0
    for directory in (tmp_path / "real" / "my-api", tmp_path / "elsewhere"):
        assert faults(directory) == []


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_whatever_the_umask_the_password_is_private(tmp_path: Path, umask: int) -> None:
    subprocess.run(COMMAND, cwd=tmp_path, check=True, umask=umask)
    assert (tmp_path / "my-api" / ".env").stat().st_mode & 0o777 == 0o600
    assert faults(tmp_path / "my-api") == []


def test_no_home_no_path_and_no_network_are_needed(tmp_path: Path) -> None:
    environment = {"PATH": str(tmp_path / "empty"), "https_proxy": "http://127.0.0.1:1"}
    result = subprocess.run(COMMAND, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert faults(tmp_path / "my-api") == []


def test_an_interrupt_says_so(tmp_path: Path) -> None:
    process = subprocess.Popen(
        COMMAND, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "my-api").exists():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate()
    assert process.returncode != 0
    assert "Aborted" in errors or "KeyboardInterrupt" in output + errors
