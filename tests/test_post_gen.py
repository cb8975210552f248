"""The hook finishes what `alembic init` leaves undone, and notices what is broken."""

import re
import shutil
from pathlib import Path

import post_gen_project
import pytest
from conftest import PROJECT_DIRECTORY, Project, cookiecutter, faults
from post_gen_project import FIRST_REVISION, join_history, verify_history

MODELS = "app/models/__init__.py"


def test_a_generated_project_has_no_fault(baked: Project) -> None:
    assert faults(baked.path) == []


BROKEN = [
    (".env.example", "DATABASE_URL=", "#DATABASE_URL=", "DATABASE_URL=postgresql+asyncpg://"),
    (".env.example", "+asyncpg", "+psycopg", "DATABASE_URL=postgresql+asyncpg://"),
    (".env.example", "+psycopg", "", "DATABASE_URL_SYNC=postgresql+psycopg://"),
    ("alembic.ini", "%(here)s/alembic", "alembic", "script_location = %(here)s/alembic"),
    ("alembic.ini", "prepend_sys_path = %(here)s", "", "prepend_sys_path = %(here)s"),
    ("alembic.ini", "prepend_sys_path = %(here)s", "prepend_sys_path = .", "%(here)s"),
    ("alembic.ini", "path_separator = os", "#path_separator = os", "path_separator = os"),
    ("alembic.ini", "url =", "url = driver://user:pass@localhost/dbname", "a placeholder"),
    ("alembic/env.py", "from app.models import *", "", "from app.models import *"),
    (
        "alembic/env.py",
        "from app.database.migrations",
        "from elsewhere",
        "app.database.migrations",
    ),
    (MODELS, "import_module(module.name)", "pass", "must import item"),
]


@pytest.mark.parametrize(("name", "old", "new", "fault"), BROKEN)
def test_a_broken_file_is_noticed(
    copied: Project, name: str, old: str, new: str, fault: str
) -> None:
    copied.replace(name, old, new)
    (found,) = faults(copied.path)
    assert found.startswith(f"{name}: ")
    assert fault in found


def test_spaces_in_the_ini_file_do_not_matter(copied: Project) -> None:
    copied.replace("alembic.ini", "path_separator = os", "path_separator=os")
    assert faults(copied.path) == []


def test_models_may_be_imported_one_by_one(copied: Project) -> None:
    (copied.path / MODELS).write_text("from . import (\n    item,\n)\n")
    assert faults(copied.path) == []
    (copied.path / MODELS).write_text("# item\n")
    assert faults(copied.path) == [f"{MODELS}: must import item, or Alembic misses its tables"]


@pytest.mark.parametrize("name", ["alembic/__init__.py", "alembic.py"])
def test_a_module_that_hides_the_library_is_noticed(copied: Project, name: str) -> None:
    (copied.path / name).touch()
    assert faults(copied.path) == [f"{name}: it hides the library alembic; rename or remove it"]


def test_an_empty_package_is_removed_and_one_with_content_is_the_owners(tmp_path: Path) -> None:
    init = tmp_path / "alembic" / "__init__.py"
    init.parent.mkdir()
    init.write_text("\n")
    post_gen_project.remove_alembic_package(tmp_path)
    assert not init.exists()
    init.write_text("VERSION = 1\n")
    post_gen_project.remove_alembic_package(tmp_path)
    assert init.read_text() == "VERSION = 1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A directory with the template's revision and no other file."""
    first = tmp_path / FIRST_REVISION
    first.parent.mkdir(parents=True)
    shutil.copy(PROJECT_DIRECTORY / FIRST_REVISION, first)
    return tmp_path


def write_revision(root: Path, name: str, down: object) -> None:
    text = f"revision = {name!r}\ndown_revision = {down!r}\n"
    (root / "alembic" / "versions" / f"{name}.py").write_text(text)


def test_the_only_revision_stays_as_it_is(root: Path) -> None:
    before = (root / FIRST_REVISION).read_bytes()
    join_history(root, {FIRST_REVISION})
    assert (root / FIRST_REVISION).read_bytes() == before
    assert verify_history(root) == []


STYLES = {
    "plain": "revision = 'aaa'\ndown_revision = None\n",
    "annotated": "revision: str = 'aaa'\ndown_revision: str | None = None\n",
    "labelled": "revision = 'aaa'\ndown_revision = None\nbranch_labels = ('x',)\n",
    "latin-1": "# -*- coding: latin-1 -*-\n# caf\xe9\nrevision = 'aaa'\ndown_revision = None\n",
    "BOM": "\xef\xbb\xbfrevision = 'aaa'\ndown_revision = None\n",
    "merge": "revision = 'aaa'\ndown_revision = (\n    'bbb',\n    'ccc',\n)\n",
}


@pytest.mark.parametrize("text", STYLES.values(), ids=STYLES)
def test_the_templates_revision_follows_one_of_every_style(root: Path, text: str) -> None:
    mine = root / "alembic" / "versions" / "mine.py"
    mine.write_bytes(text.encode("latin-1"))
    (mine.parent / "__init__.py").touch()
    if "bbb" in text:
        write_revision(root, "ddd", None)
        write_revision(root, "bbb", "ddd")
        write_revision(root, "ccc", ("ddd",))
    join_history(root, {FIRST_REVISION})
    first = (root / FIRST_REVISION).read_text()
    assert "\nRevises: aaa\n" in first
    assert '\ndown_revision: str | Sequence[str] | None = "aaa"\n' in first
    assert "\nbranch_labels: str | Sequence[str] | None = None\n" in first
    assert mine.read_bytes() == text.encode("latin-1")
    assert verify_history(root) == []


def test_two_heads_are_joined_by_the_templates_revision(root: Path) -> None:
    for name, down in (("base", None), ("right", "base"), ("left", "base")):
        write_revision(root, name, down)
    join_history(root, {FIRST_REVISION})
    assert '| None = ["left", "right"]\n' in (root / FIRST_REVISION).read_text()
    assert verify_history(root) == []


def test_a_first_revision_under_another_name_is_not_doubled(root: Path) -> None:
    shutil.copy(root / FIRST_REVISION, root / "alembic" / "versions" / "0001_items.py")
    join_history(root, {FIRST_REVISION})
    assert not (root / FIRST_REVISION).exists()
    assert verify_history(root) == []


def test_the_templates_revision_stays_below_those_that_follow_it(root: Path) -> None:
    before = (root / FIRST_REVISION).read_bytes()
    write_revision(root, "next", "1f0c5e7a9b3d")
    join_history(root, {FIRST_REVISION})
    assert (root / FIRST_REVISION).read_bytes() == before
    assert verify_history(root) == []


OPTIONS = {
    f"alembic/versions/2027-01-0{day}_create_{name}_{name * 3}.py": name * 3
    for day, name in ((1, "oooo"), (2, "pppp"))
}


def bring(root: Path, *names: str) -> None:
    """Write revisions of options, each like the template's first one, and join the history."""
    for name in names:
        text = post_gen_project.follow((root / FIRST_REVISION).read_text(), ["1f0c5e7a9b3d"])
        text = text.replace('revision: str = "1f0c5e7a9b3d"', f'revision: str = "{OPTIONS[name]}"')
        (root / name).write_text(text.replace("ID: 1f0c5e7a9b3d", f"ID: {OPTIONS[name]}"))


def ends(root: Path) -> list[set[str]]:
    """The names that the merge revisions join."""
    history = post_gen_project.read_history(root)
    return [down for path, (_, down) in history.items() if "_merge_options_" in path.name]


def test_revision_of_one_option_needs_no_merge(root: Path) -> None:
    bring(root, min(OPTIONS))
    join_history(root, {FIRST_REVISION, min(OPTIONS)})
    assert ends(root) == []
    assert verify_history(root) == []


def test_revisions_of_two_options_are_siblings_below_a_merge(root: Path) -> None:
    bring(root, *OPTIONS)
    before = {name: (root / name).read_bytes() for name in OPTIONS}
    join_history(root, {FIRST_REVISION, *OPTIONS})
    assert ends(root) == [set(OPTIONS.values())]
    assert {name: (root / name).read_bytes() for name in OPTIONS} == before
    (merge,) = root.glob("alembic/versions/2027-01-02_merge_options_*.py")
    text = merge.read_text()
    name = merge.stem[-12:]
    assert text.startswith(f'"""merge options\n\nRevision ID: {name}\nRevises: oooo')
    assert text.count(name) == 2
    assert text.endswith("def downgrade() -> None:\n    pass\n")
    assert verify_history(root) == []


def test_option_joins_the_owners_history(root: Path) -> None:
    """Their revisions are known, so the hook writes what `alembic merge` would."""
    write_revision(root, "mine", "1f0c5e7a9b3d")
    bring(root, min(OPTIONS))
    join_history(root, {min(OPTIONS)})
    assert ends(root) == [{"mine", "oooo" * 3}]
    assert verify_history(root) == []
    join_history(root, set())
    assert len(ends(root)) == 1


def test_option_joins_an_earlier_merge(root: Path) -> None:
    test_option_joins_the_owners_history(root)
    bring(root, max(OPTIONS))
    join_history(root, {max(OPTIONS)})
    assert len(ends(root)) == 2
    assert verify_history(root) == []


def test_the_owners_history_comes_before_the_first_revision_and_its_options(root: Path) -> None:
    write_revision(root, "mine", None)
    bring(root, *OPTIONS)
    join_history(root, {FIRST_REVISION, *OPTIONS})
    assert post_gen_project.read_history(root)[root / FIRST_REVISION][1] == {"mine"}
    assert ends(root) == [set(OPTIONS.values())]
    assert verify_history(root) == []


def test_revision_of_an_option_under_another_name_is_not_doubled(root: Path) -> None:
    bring(root, min(OPTIONS))
    shutil.copy(root / min(OPTIONS), root / "alembic" / "versions" / "0002_mine.py")
    join_history(root, {min(OPTIONS)})
    assert not (root / min(OPTIONS)).exists()
    assert verify_history(root) == []


def test_two_heads_of_the_owners_are_not_joined(root: Path) -> None:
    write_revision(root, "aaa", "1f0c5e7a9b3d")
    write_revision(root, "bbb", "1f0c5e7a9b3d")
    bring(root, min(OPTIONS))
    join_history(root, {min(OPTIONS)})
    assert ends(root) == []
    assert verify_history(root) == ["alembic/versions: needs one head, has aaa, bbb, oooooooooooo"]


ANSWERS: dict[str, object] = {"project_name": "My API", "description": "", "docker": True}
ANSWERS |= {"auth": "none", "ci": "github", "_list": ["a"]}
MARKED = {
    "a line": ("a\nb  # option: auth=accounts\nc\n", "a\nc\n"),
    "one that stays": ("a\nb  # option: auth=none\nc\n", "a\nb\nc\n"),
    "one of two answers": ("a # option: ci=gitlab,github\nb # option: ci=none,gitlab\n", "a\n"),
    "yes and no": ("a # option: docker=yes\nb # option: docker=no\n", "a\n"),
    "a block": (
        "services:\n  a: # option: docker=no\n    b:\n      - c\n  d:\n    e: 1\n",
        "services:\n  d:\n    e: 1\n",
    ),
    "a block that stays, with a mark in it": (
        "a: # option: docker=yes\n  b: 1 # option: docker=no\n  c: 2\n",
        "a:\n  c: 2\n",
    ),
    "blank lines": ("a\n\n# b # option: ci=none\nB= # option: ci=none\n\nc\n", "a\n\nc\n"),
    "blank lines in a block": (
        "a:\n\nb: # option: ci=none\n  c:\n\n  d:\n\ne:\n",
        "a:\n\ne:\n",
    ),
    "the last lines": ("a\n\nb # option: ci=none\n", "a\n"),
    "brackets": (
        "class S(\n    A,  # option: auth=accounts\n    B,\n):\n    x = 1\n",
        "class S(\n    B,\n):\n    x = 1\n",
    ),
    "Markdown": ("| a | # option: auth=accounts\n| b | # option: auth=none\n", "| b |\n"),
    "text within a line": ("a # option: auth=accounts is text\n", None),
    "CRLF": ("a\r\nb  # option: ci=none\r\nc # option: ci=github\r\n", "a\r\nc\r\n"),
    "other breaks": ("a\x0c\u2028\x85b\rc\nd # option: ci=none\n", "a\x0c\u2028\x85b\rc\n"),
    "no last newline": ("a # option: docker=yes", "a"),
}


@pytest.mark.parametrize(("text", "expected"), MARKED.values(), ids=MARKED)
def test_marked_lines_are_there_for_their_answers(
    tmp_path: Path, text: str, expected: str | None
) -> None:
    path = tmp_path / "file"
    path.write_bytes(text.encode())
    post_gen_project.apply_marks(path, ANSWERS)
    assert path.read_bytes() == (text if expected is None else expected).encode()


def test_bytes_that_are_not_utf8_come_through(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"caf\xe9\nb # option: docker=no\n")
    post_gen_project.apply_marks(path, ANSWERS)
    assert path.read_bytes() == b"caf\xe9\n"


def test_free_text_that_looks_like_a_mark_is_none(tmp_path: Path) -> None:
    texts = ["Dock # option: docker=no", "An API # option: auth=accounts"]
    result = cookiecutter(
        tmp_path, f"project_name={texts[0]}", f"description={texts[1]}", "project_slug=my-api"
    )
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "my-api" / "README.md").read_text().splitlines()
    assert lines[:4] == [f"# {texts[0]}", "", texts[1], ""]


UNFIT: dict[str, tuple[dict[str, object], list[str]]] = {
    "two heads": (
        {"aaa": "1f0c5e7a9b3d", "bbb": "1f0c5e7a9b3d"},
        ["alembic/versions: needs one head, has aaa, bbb"],
    ),
    "two bases": (
        {"aaa": None, "bbb": ("aaa", "1f0c5e7a9b3d")},
        ["alembic/versions: needs one base, has 1f0c5e7a9b3d, aaa"],
    ),
    "no literal": (
        {"aaa": 5, "bbb": "aaa"},
        ["alembic/versions/aaa.py: revision or down_revision is not a literal"],
    ),
}


@pytest.mark.parametrize(("revisions", "told"), UNFIT.values(), ids=UNFIT)
def test_a_history_that_does_not_fit_is_told(
    root: Path, revisions: dict[str, object], told: list[str]
) -> None:
    for name, down in revisions.items():
        write_revision(root, name, down)
    assert verify_history(root) == told


UNREADABLE = {
    "a name": "P = 'x'\nrevision = 'bbb'\ndown_revision = P\n",
    "no name": "down_revision = None\n",
    "no value": "revision: str\ndown_revision: str\n",
    "no Python": "revision = \n",
    "NUL": "\0",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_a_revision_that_cannot_be_read_is_told(root: Path, text: str) -> None:
    (root / "alembic" / "versions" / "mine.py").write_text(text)
    join_history(root, {FIRST_REVISION})
    (line,) = verify_history(root)
    assert line == "alembic/versions/mine.py: revision or down_revision is not a literal"


def test_a_directory_without_revisions_is_told(root: Path) -> None:
    (root / FIRST_REVISION).unlink()
    assert verify_history(root) == [
        "alembic/versions: needs one base, has none",
        "alembic/versions: needs one head, has none",
    ]


def test_it_ends_with_the_next_commands(tmp_path: Path) -> None:
    """Where no file was there before, there is nothing to undo."""
    result = cookiecutter(tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [line.strip() for line in result.stdout.splitlines()]
    assert "My API (An API on PostgreSQL) is ready. Next:" in lines
    assert f"cd {tmp_path / 'my-api'}" in lines
    assert [line for line in lines if line.startswith("uv run dev ")]
    assert "undo" not in result.stdout


def test_a_terminal_that_cannot_show_a_name_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    result = cookiecutter(tmp_path, "project_name=Ü", "project_slug=my-api")
    assert result.returncode == 0, result.stderr
    assert "\\xdc (An API on PostgreSQL) is ready" in result.stdout


def test_env_has_a_password_of_its_own_and_is_private(copied: Project) -> None:
    passwords = set()
    for _ in range(2):
        (copied.path / ".env").unlink(missing_ok=True)
        post_gen_project.write_env(copied.path)
        text = (copied.path / ".env").read_text()
        found = re.findall(r"^DATABASE_URL.*://(?:app|app_owner):([^@]+)@", text, re.MULTILINE)
        assert len(found) == 2
        assert min(map(len, found)) >= 32
        passwords |= set(found)
    assert len(passwords) == 4  # who has the application's does not have the owner's
    assert "change-me" not in text
    assert (copied.path / ".env").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("linked", [False, True])
def test_env_is_never_overwritten(copied: Project, linked: bool) -> None:
    (copied.path / ".env").unlink()
    if linked:
        (copied.path / ".env").symlink_to("elsewhere")
    else:
        (copied.path / ".env").write_text("MINE=1\n")
    post_gen_project.write_env(copied.path)
    if linked:
        assert not (copied.path / "elsewhere").exists()
    else:
        assert (copied.path / ".env").read_text() == "MINE=1\n"


def test_an_example_in_another_encoding_comes_through(tmp_path: Path) -> None:
    (tmp_path / ".env.example").write_bytes(b"# caf\xe9\nTOKEN=change-me\n")
    post_gen_project.write_env(tmp_path)
    assert re.fullmatch(rb"# caf\xe9\nTOKEN=[0-9a-f]{48}\n", (tmp_path / ".env").read_bytes())
