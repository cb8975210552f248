"""The generated project's README, docs and AGENTS.md: their commands, names and paths."""

import json
import re
import subprocess
import sys
from pathlib import Path

import post_gen_project
import pytest
import readmes
from conftest import TEMPLATE, Bake, Project, short_directory, touched, user_environment
from readmes import AGENTS, DEPLOY, GENERATED, MIGRATIONS

PAGES = [GENERATED, AGENTS, DEPLOY, MIGRATIONS]


def inline_code(text: str) -> list[str]:
    """Return the code spans of a page, without its code blocks."""
    prose = re.sub(r"^( *)```.*?^\1```", "", text, flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"`([^`]+)`", prose)


def run_blocks(project: Project, blocks: list[str]) -> str:
    """Run shell blocks in the project, and return their output."""
    return "".join(project.run("sh", "-euc", block).stdout for block in blocks)


@pytest.mark.parametrize("page", PAGES)
def test_page_is_generated(baked: Project, page: str) -> None:
    text = (baked.path / page.removeprefix(f"{readmes.PRODUCT}/")).read_text("utf-8")
    assert text.startswith("# ")
    assert "cookiecutter" not in text


# Created by a command of the page, or examples.
LATER = {".postgres/", "app/models/note.py", "app/models/user.py", "app/notes/schemas.py"}
LATER |= {"backend/", "uv.lock"}
FILES = re.compile(r"\.?[\w-]+(/[\w.-]+)*(/|\.(py|md|sql|toml|ini|yaml|lock))|\.\w+(\.\w+)?")


def missing(project: Project, text: str) -> list[str]:
    """The paths that a page names and the project does not have."""
    tree = "".join(readmes.fenced(text, "")).splitlines()
    named = {*inline_code(text), *(line.split()[0] for line in tree if line)}
    paths = {name for name in named if FILES.fullmatch(name)} - LATER
    roots = (project.path, project.path / "deploy/kubernetes")  # whose page names its files
    return [path for path in paths if not any((root / path).exists() for root in roots)]


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(baked: Project, page: str) -> None:
    assert missing(baked, readmes.read(page)) == []


def test_paths_exist_with_every_option(bake: Bake) -> None:
    """And with the options of each page, no page outgrows its readers."""
    answers = dict(post_gen_project.OPTIONAL.keys())
    project = bake(**answers)
    pages = [project.path / "README.md", project.path / "AGENTS.md", *project.path.glob("docs/*")]
    assert len(pages) > len(PAGES)
    assert [path for page in pages for path in missing(project, page.read_text("utf-8"))] == []
    assert len((project.path / "AGENTS.md").read_text().splitlines()) <= 70


def test_agents_table_names_code_that_exists(baked: Project) -> None:
    """Each name of a row is defined or used in a file of the row."""
    rows = re.findall(r"^\| (.*) \| (.*) \|$", readmes.sections(AGENTS)["Where things go"], re.M)
    assert len(rows) > 8
    for _, place in rows[2:]:
        spans = inline_code(place)
        paths = [baked.path / span for span in spans if FILES.fullmatch(span)]
        files = [file for path in paths for file in [path, *path.glob("*.py")] if file.is_file()]
        assert files, place
        source = "".join(file.read_text("utf-8") for file in files)
        for name in (span for span in spans if not FILES.fullmatch(span)):
            assert re.search(rf"\b{name.rpartition('.')[2]}\b", source), f"{name} in {place}"


def test_agents_commands_are_those_of_the_readme() -> None:
    """Other tests run the README's."""
    (commands,) = readmes.take(AGENTS)
    suite, lint = readmes.blocks(GENERATED, "")[1:3]
    assert commands == lint + suite


def test_agents_md_is_short() -> None:
    """An assistant loads the whole file for every task."""
    assert len(readmes.read(AGENTS).splitlines()) <= 60


DEFAULTS = """
import json
from app.config import Settings
from app.database.settings import MigrationSettings
fields = Settings.model_fields | MigrationSettings.model_fields
print(json.dumps({name.upper(): field.get_default() for name, field in fields.items()
                  if not name.startswith("database_url")}, default=str))
"""


@pytest.mark.slow
def test_settings_table_has_every_setting_with_its_default(installed: Project) -> None:
    output = installed.run("uv", "run", "--quiet", "python", "-c", DEFAULTS).stdout
    expected = {
        name: ",".join(value) if isinstance(value, list) else str(value).lower()
        for name, value in json.loads(output).items()
    }
    rows = re.findall(r"^\| `(\w+)` \|(.*?)\|", readmes.sections(DEPLOY)["Settings"], re.M)
    table = {name: default.strip(" `") for name, default in rows}
    urls = {name: table.pop(name) for name in ("DATABASE_URL", "DATABASE_URL_SYNC")}
    assert set(urls.values()) == {"from the other URL"}
    assert table == expected


@pytest.mark.long
@pytest.mark.slow
def test_table_is_added_and_the_example_removed(started: Project) -> None:
    code, *_ = readmes.fenced(readmes.sections(GENERATED)["Add a table"], "python")
    (started.path / "app" / "models" / "user.py").write_text(code)
    run_blocks(started, readmes.take(GENERATED, "Add a table"))
    (revision,) = (started.path / "alembic" / "versions").glob("*_create_users_*.py")
    upgrade = revision.read_text().split("def downgrade")[0]
    assert set(re.findall(r"\bop\.(\w+)", upgrade)) == {"create_table", "f"}
    assert started.uv("dev", "psql", "-Atc", "SELECT * FROM users") == ""

    remove_example(started)


def remove_example(project: Project) -> None:
    """Follow "Remove the example" word for word."""
    run_blocks(project, readmes.take(GENERATED, "Remove the example"))
    (revision,) = (project.path / "alembic" / "versions").glob("*_drop_items_*.py")
    drop, confirmed = (
        span
        for span in inline_code(readmes.sections(GENERATED)["Remove the example"])
        if span.startswith("op.")
    )
    output = project.uv("pytest", "-q", "tests/test_migrations.py", check=False)
    assert "ban-drop-table" in output  # the confirmation is needed
    project.replace(f"alembic/versions/{revision.name}", drop, confirmed)
    run_blocks(project, readmes.blocks(GENERATED, "")[1:3])
    project.uv("dev", "sh", "-euc", "alembic upgrade head && alembic check")


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (question, answer)
        for question, answer in post_gen_project.OPTIONAL
        if "app/main.py" in touched(question, answer)
    ],
)
def test_example_is_removed_beside_an_option(bake: Bake, question: str, answer: object) -> None:
    remove_example(bake(**{question: answer}).copy(short_directory()))


def add_feature(project: Project, name: str) -> None:
    """Follow "Add a feature" word for word, with `name` for its `note`."""

    def renamed(text: str) -> str:
        return text.replace("note", name).replace("Note", name.title())

    copy, check = map(renamed, readmes.take(GENERATED, "Add a feature"))
    run_blocks(project, [copy])
    spans = inline_code(readmes.sections(GENERATED)["Add a feature"])
    lines = (project.path / "app" / "main.py").read_text().splitlines()
    for start in ("from app.", "app.include_router("):
        (added,) = [renamed(span) for span in spans if span.startswith(start)]
        (beside,) = [line for line in lines if line.strip().startswith(f"{start}items")]
        project.replace("app/main.py", beside, f"{beside}\n{beside.partition(start)[0]}{added}")
    assert " passed" in run_blocks(project, [check])


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.parametrize("name", ["note", pytest.param("customer", marks=pytest.mark.exhaustive)])
def test_feature_is_added(started: Project, name: str) -> None:
    add_feature(started, name)
    (revision,) = (started.path / "alembic" / "versions").glob(f"*_create_{name}s_*.py")
    assert f'"{name}s"' in revision.read_text()
    run_blocks(started, readmes.blocks(GENERATED, "")[2:3])
    started.uv("dev", "sh", "-euc", "alembic upgrade head && alembic check")
    for file in (started.path / "app" / f"{name}s").glob("*.py"):
        assert "item" not in file.read_text().lower().replace(".items()", "")


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
    known = {"", "console", "js", "json", "mermaid", "nginx", "python", "text", "yaml"}
    assert {language for language, _ in blocks} <= known
    assert [code for language, code in blocks if language == "" and "$ " in code] == []
