"""The recipes of the generated README, extracted from it, on a table that is written to."""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import PROJECT_DIRECTORY, Project, short_directory, user_environment
from recipes import FIRST_REVISION, read_recipes, write_revisions

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("recipes.py")
README = PROJECT_DIRECTORY / "README.md"
RECIPES = read_recipes(README)
# A writer's longest stall in milliseconds. It is a tenth of that, or several times as much where
# all rows are locked; the best of some attempts counts, since this machine has other work.
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
    "Add an index": {"changes": [f"+{INDEX} INVALID"]},
}


@pytest.fixture(scope="module")
def served(baked: Project) -> Iterator[Project]:
    """A project whose PostgreSQL keeps running."""
    project = baked.copy(short_directory())
    project.run("uv", "sync", "--quiet")
    holder = ["uv", "run", "--quiet", "dev", "cat"]  # until its input is closed
    with subprocess.Popen(holder, cwd=project.path, env=user_environment(), stdin=subprocess.PIPE):
        yield project


def carry_out(project: Project, mode: str, rows: int, recipe: str) -> dict[str, Any]:
    script = ["python", str(SCRIPT), mode, str(rows), recipe]
    output = project.run("uv", "run", "--quiet", "dev", *script).stdout
    result: dict[str, Any] = json.loads(output)
    return result


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_stops_nobody(served: Project, recipe: str) -> None:
    """Up and down, with 100,000 rows and a writer who never fails."""
    for _ in range(ATTEMPTS):
        result = carry_out(served, "stall", 100_000, recipe)
        assert result["changes"] == CHANGES[recipe]
        print(f"{recipe}: {max(result['stalls'])} ms")
        if max(result["stalls"]) < LIMIT:
            return
    pytest.fail(f"{recipe}: the writer waited for {result['stalls']} ms")


@pytest.mark.parametrize("recipe", RECIPES)
def test_an_interrupted_recipe_can_be_run_again(served: Project, recipe: str) -> None:
    result = carry_out(served, "interrupt", 5_000, recipe)
    expected = {"changes": [], "filled": 0} | LEFT.get(recipe, {})
    assert result == {"recipe": recipe} | expected


def test_what_stops_a_writer_is_seen(served: Project) -> None:
    """So that the other figures mean something."""
    recipe = "Backfill in batches"
    naive = carry_out(served, "naive", 100_000, recipe)["stalls"][0]
    stalls = [carry_out(served, "stall", 100_000, recipe)["stalls"][0] for _ in range(ATTEMPTS)]
    assert naive > 3 * min(stalls)


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
    (command,) = re.findall(r"^\$ (.* squawk)$", README.read_text(), re.MULTILINE)
    assert f"{FIRST_REVISION}:head" in command
    assert "Found 0 issues" in copied.run("sh", "-c", command).stdout


MODEL = {
    "    description: Mapped[str | None]": "    summary: Mapped[str | None]",
    'name="name_length"),)': 'name="name_length"), Column("description", Text))\n'
    '    __mapper_args__ = Base.__mapper_args__ | {"exclude_properties": ["description"]}',
    "import CheckConstraint,": "import CheckConstraint, Column, Text,",
}
CODE = """
import os, sys
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session
from app.models.item import Item
with Session(create_engine(os.environ["DATABASE_URL_SYNC"])) as session:
    session.add(Item(name=sys.argv[1], summary="new"))
    session.commit()
    print(session.scalars(select(Item.summary)).all())
"""


def test_the_code_of_a_rename_runs_before_and_after_its_second_revision(copied: Project) -> None:
    """With the model that the README describes."""
    prose = " ".join(README.read_text().split())
    for part in (
        'Column("description", Text)',
        '__mapper_args__ = Base.__mapper_args__ | {"exclude_properties": ["description"]}',
    ):
        assert f"`{part}`" in prose
        assert part in "".join(MODEL.values())
    for old, new in MODEL.items():
        copied.replace("app/models/item.py", old, new)
    write_revisions(
        copied.path / "alembic" / "versions", FIRST_REVISION, RECIPES["Rename a column"]
    )
    steps = (
        "alembic upgrade recipe_1 && alembic check && python -c '{0}' a && alembic upgrade head"
    )
    steps += " && python -c '{0}' b"
    output = copied.uv("dev", "sh", "-c", steps.format(CODE))
    assert "No new upgrade operations" in output
    assert "['new', 'new']" in output
