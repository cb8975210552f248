"""The recipes of the generated README, extracted from it, on a table that is written to."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import readmes
from conftest import PROJECT_DIRECTORY, Project, short_directory
from recipes import FIRST_REVISION, read_recipes, write_revisions

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("recipes.py")
README = PROJECT_DIRECTORY / "README.md"
RECIPES = read_recipes(README)
# A writer's longest stall in milliseconds: a recipe's is 50 where it is quiet, one UPDATE of all
# rows takes 300. The best of some attempts counts, since the machine may have other work.
LIMIT, ATTEMPTS = 250, 3


def check(values: str) -> str:
    texts = ", ".join(f"'{value}'::character varying" for value in values.split())
    return f"ck_items_status CHECK (((status)::text = ANY ((ARRAY[{texts}])::text[])))"


INDEX = "CREATE INDEX ix_items_created_at ON public.items USING btree (created_at)"
CHANGES = {
    "Add a NOT NULL column": ["+status character varying NOT NULL 'draft'::character varying"],
    "Backfill in batches": [],
    "Make a column NOT NULL": ["+description text NOT NULL", "-description text"],
    "Add a foreign key": [
        "+fk_items_parent_id_items FOREIGN KEY (parent_id) REFERENCES items(id)",
        "+parent_id bigint",
    ],
    "Add an index": [f"+{INDEX}"],
    "Rename a column": ["+summary text", "-description text"],
    "Add a value to an enum": [f"+{check('draft done archived')}", f"-{check('draft done')}"],
}
# What an interrupted statement leaves behind, which is not rolled back as all others are.
LEFT: dict[str, dict[str, Any]] = {
    "Backfill in batches": {"filled": 2000},
    "Make a column NOT NULL": {"filled": 5000},  # by the recipe before it
    "Add an index": {"left": [f"+{INDEX} INVALID"]},
}


@pytest.fixture(scope="module")
def project(baked: Project) -> Project:
    """A project with a database of its own."""
    return baked.copy(short_directory())


def carry_out(project: Project, mode: str, rows: int, *recipes: str) -> dict[str, dict[str, Any]]:
    """What recipes.py says of each recipe, by its name."""
    script = ["python", str(SCRIPT), mode, str(rows), *recipes]
    output = project.run("uv", "run", "--quiet", "dev", *script).stdout
    results = [json.loads(line) for line in output.splitlines()]
    return {result.pop("recipe"): result for result in results}


@pytest.fixture(scope="module")
def stalls(project: Project) -> dict[str, dict[str, Any]]:
    """Each recipe up and down while a writer, who must never fail, is at work."""
    return carry_out(project, "stall", 100_000)


@pytest.fixture(scope="module")
def interruptions(project: Project) -> dict[str, dict[str, Any]]:
    """Each recipe up and down, stopped everywhere and run again."""
    return carry_out(project, "interrupt", 5_000)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_stops_nobody(
    project: Project, stalls: dict[str, dict[str, Any]], recipe: str
) -> None:
    result = stalls[recipe]
    for _ in range(ATTEMPTS):
        assert "error" not in result, result["error"]
        assert result["changes"] == CHANGES[recipe]
        longest = max(result["stalls"])
        print(f"{recipe}: {longest} ms")
        if longest < LIMIT:
            return
        result = carry_out(project, "stall", 100_000, recipe)[recipe]
    pytest.fail(f"{recipe}: the writer waited for {longest} ms")


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_interrupted_recipe_can_be_run_again(
    interruptions: dict[str, dict[str, Any]], recipe: str
) -> None:
    result = interruptions[recipe]
    assert "error" not in result, result["error"]
    assert result == {"changes": CHANGES[recipe], "left": [], "filled": 0} | LEFT.get(recipe, {})


def test_what_stops_a_writer_is_seen(project: Project, stalls: dict[str, dict[str, Any]]) -> None:
    """So that the other figures mean something: an UPDATE of all rows is several times worse."""
    recipe = "Backfill in batches"
    naive = carry_out(project, "naive", 100_000, recipe)[recipe]["stalls"][0]
    stall = stalls[recipe]["stalls"][0]
    for _ in range(ATTEMPTS):
        if naive > 3 * stall:
            return
        stall = carry_out(project, "stall", 100_000, recipe)[recipe]["stalls"][0]
    pytest.fail(f"{naive} ms instead of {stall} ms")


def test_recipes_are_clean_as_they_are_pasted(copied: Project) -> None:
    """Each in a revision, one after the other; the first by the command of the README."""
    versions = copied.path / "alembic" / "versions"
    copied.uv("dev", "sh", "-c", 'alembic upgrade head && alembic revision -m "first"')
    (path,) = versions.glob("*_first_*.py")
    head = path.read_text().split("def upgrade")[0]
    (first, *others) = [body for bodies in RECIPES.values() for body in bodies]
    path.write_text(head + first)
    (name,) = re.findall(r'^revision: str = "(\w+)"', head, re.MULTILINE)
    write_revisions(versions, name, others)

    copied.uv("ruff", "check")
    copied.uv("ruff", "format", "--check")
    tests = "goes_up_down or safe_on_a_busy_table"
    assert "2 passed" in copied.uv("pytest", "-q", "tests/test_migrations.py", "-k", tests)
    (command,) = readmes.take(readmes.GENERATED, "Migrations")
    assert f"{FIRST_REVISION}:head" in command
    assert "Found 0 issues" in copied.run("sh", "-c", command).stdout


COLUMN = 'Column("description", Text)'
MAPPER = '__mapper_args__ = Base.__mapper_args__ | {"exclude_properties": ["description"]}'
MODEL = {
    "import CheckConstraint,": "import CheckConstraint, Column, Text,",
    'name="name_length"),)': f'name="name_length"), {COLUMN})\n    {MAPPER}',
    "description: Mapped[str | None]": "summary: Mapped[str | None]",
}
CODE = """
import os
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import Session
from app.models.item import Item
with Session(create_engine(os.environ["DATABASE_URL_SYNC"])) as session:
    number = session.scalar(select(func.count()).select_from(Item))
    session.add(Item(name=str(number), summary=str(number)))
    session.commit()
    print(session.scalars(select(Item.summary).order_by(Item.id)).all())
"""
RELEASES = """
mv alembic/versions/recipe_2.py .
alembic upgrade head && alembic check && python code.py
mv recipe_2.py alembic/versions
alembic upgrade head && python code.py
"""


def test_the_code_of_a_rename_runs_on_both_of_its_revisions(copied: Project) -> None:
    """With the model that the README describes, on which Alembic agrees."""
    prose = " ".join(README.read_text().split())
    assert f"`{COLUMN}`" in prose
    assert f"`{MAPPER}`" in prose
    for old, new in MODEL.items():
        copied.replace("app/models/item.py", old, new)
    first, second = RECIPES["Rename a column"]
    versions = copied.path / "alembic" / "versions"
    (name,) = write_revisions(versions, FIRST_REVISION, [first])
    write_revisions(versions, name, [second])
    (copied.path / "code.py").write_text(CODE)
    output = copied.uv("dev", "sh", "-c", RELEASES)
    assert "['0']" in output
    assert "['0', '1']" in output


def make_faster(project: Path) -> None:
    """Put the code of "A read that must be faster" where it says."""
    text = readmes.sections(readmes.GENERATED)["A read that must be faster"]
    for file, code in re.findall(r"`(app/items/\w+\.py)`.*?```python\n(.*?)```", text, re.DOTALL):
        imports = "".join(re.findall(r"^from .*\n", code, re.MULTILINE))
        definitions = re.sub(r"^from .*\n", "", code, flags=re.MULTILINE).strip()
        (function,) = re.findall(r"^async def \w+\(", code, re.MULTILINE)
        docstring, _, source = (project / file).read_text().partition("\n")
        # Two blank lines separate definitions.
        parts = [definitions if function in part else part for part in source.split("\n\n\n")]
        assert definitions in parts
        (project / file).write_text(f"{docstring}\n\n{imports}" + "\n\n\n".join(parts))


@pytest.mark.exhaustive
def test_a_faster_read_answers_as_the_example_does(copied: Project) -> None:
    make_faster(copied.path)
    copied.uv("ruff", "check", "--fix")
    assert " passed" in copied.uv("pytest", "-q", "tests/test_items.py")
    copied.uv("ruff", "format", "--check")
    copied.uv("mypy")
