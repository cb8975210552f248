"""The generated project's README, docs and AGENTS.md: their commands, word for word."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import readmes
from conftest import TEMPLATE, user_environment


@pytest.mark.slow
def test_a_block_that_no_test_runs_fails_a_whole_run(
    template_repository: Path, tmp_path: Path
) -> None:
    for path in (template_repository / "tests").glob("test_*.py"):
        path.unlink()
    test = template_repository / "tests" / "test_nothing.py"
    test.write_text("def test_nothing() -> None: ...\n")
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0"]
    environment = user_environment() | {"PYTEST_DEBUG_TEMPROOT": str(tmp_path)}

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *options],
            cwd=template_repository,
            env=environment,
            capture_output=True,
            text=True,
        )

    whole = run()
    assert whole.returncode == 1
    assert "no test runs the block in README.md, Fork it: git clone" in whole.stdout
    assert run("-m", "not slow").returncode == 0
    assert run("tests/test_nothing.py").returncode == 0
    taking = "for h in readmes.sections(r): readmes.take(r, h)"
    test.write_text(
        "import readmes\n\n\ndef test_all() -> None:\n"
        f"    for r in readmes.READMES:\n        {taking}\n"
    )
    whole = run()
    assert whole.returncode == 0, whole.stdout


@pytest.mark.parametrize("readme", readmes.READMES)
def test_shell_blocks_say_that_they_are(readme: str) -> None:
    """So that none is overlooked."""
    text = (TEMPLATE / readme).read_text(encoding="utf-8")
    blocks = re.findall(r"^ *```([\w-]*)\n(.*?)^ *```$", text, re.DOTALL | re.MULTILINE)
    known = {"", "console", "json", "make", "mermaid", "python"}
    assert {language for language, _ in blocks} <= known
    assert [code for language, code in blocks if language == "" and "$ " in code] == []
