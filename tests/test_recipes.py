"""The recipes of docs/migrations.md, performed while another connection writes to the table."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import readmes
from conftest import PROJECT_DIRECTORY, Project
from recipes import (
    BEFORE,
    BODY,
    ENUM,
    FIRST_REVISION,
    RENAME,
    RENAME_NOT_NULL,
    UUIDS,
    read_recipes,
    write_revisions,
)

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).with_name("recipes.py")
RECIPES = read_recipes(PROJECT_DIRECTORY / "docs" / "migrations.md")
# The writer's longest stall in milliseconds: 50 with a recipe on an idle machine, 300 with one
# UPDATE of all rows. The best of several attempts counts, since the machine may be busy.
LIMIT, ATTEMPTS = 250, 3


def check(name: str, values: str) -> str:
    texts = ", ".join(f"'{value}'::text" for value in values.split())
    return f"{name} CHECK ((status = ANY (ARRAY[{texts}])))"


INDEX = "CREATE INDEX ix_items_created_at ON public.items USING btree (created_at)"
CHANGES = {
    "Add a NOT NULL column": ["+status character varying NOT NULL 'draft'::character varying"],
    "Backfill in batches": [],
    UUIDS: [],
    "Make a column NOT NULL": ["+description text NOT NULL", "-description text"],
    "Add a foreign key": [
        "+fk_items_parent_id_items FOREIGN KEY (parent_id) REFERENCES items(id)",
        "+parent_id bigint",
    ],
    "Add an index": [f"+{INDEX}"],
    RENAME: ["+summary text", "-description text"],
    RENAME_NOT_NULL: ["+summary text NOT NULL", "-description text NOT NULL"],
    ENUM: [
        f"+{check('ck_items_status_2ac2aa21', 'draft done')}",
        f"-{check('ck_items_status_447fc8fc', 'draft done archived')}",
    ],
}
# The effects of an interrupted statement that the database does not roll back.
LEFT: dict[str, dict[str, Any]] = {
    "Backfill in batches": {"filled": 2000},
    UUIDS: {"filled": 1999},  # a batch begins with the last row of the one before it
    "Make a column NOT NULL": {"filled": 5000},  # by the recipe before it
    "Add an index": {"left": [f"+{INDEX} INVALID"]},
}


def perform(project: Project, mode: str, rows: int, *recipes: str) -> dict[str, dict[str, Any]]:
    """Return the results of recipes.py by recipe."""
    script = ["python", str(SCRIPT), mode, str(rows), *recipes]
    output = project.run("uv", "run", "--quiet", "dev", *script).stdout
    results = [json.loads(line) for line in output.splitlines()]
    return {result.pop("recipe"): result for result in results}


@pytest.mark.long
@pytest.mark.exhaustive
def test_recipes_do_not_stall_a_writer(started: Project) -> None:
    slow = list(RECIPES)
    for _ in range(ATTEMPTS):
        results = perform(started, "stall", 100_000, *slow)
        for recipe, result in results.items():
            assert "error" not in result, f"{recipe}: {result['error']}"
            assert result["changes"] == CHANGES[recipe]
        stalls = {recipe: max(result["stalls"]) for recipe, result in results.items()}
        print(stalls)
        slow = [recipe for recipe, longest in stalls.items() if longest >= LIMIT]
        if not slow:
            return
    pytest.fail(f"the writer waited too long: {stalls}")


@pytest.mark.exhaustive
def test_interrupted_recipes_run_again(started: Project) -> None:
    results = perform(started, "interrupt", 5_000)
    assert results.keys() == RECIPES.keys()
    for recipe, result in results.items():
        assert "error" not in result, f"{recipe}: {result['error']}"
        nothing = {"changes": CHANGES[recipe], "left": [], "filled": 0}
        assert result == nothing | LEFT.get(recipe, {}), recipe


@pytest.mark.exhaustive
def test_plain_operation_stalls_a_writer(started: Project) -> None:
    """The measurement notices a stall: one UPDATE of all rows is several times worse."""
    recipe = "Backfill in batches"
    (naive,) = perform(started, "naive", 100_000, recipe).values()
    for _ in range(ATTEMPTS):
        (batches,) = perform(started, "stall", 100_000, recipe).values()
        if naive["stalls"][0] > 3 * batches["stalls"][0]:
            return
    pytest.fail(f"{naive} instead of {batches}")


ADD_KEY = BODY.format(
    'op.add_column("items", sa.Column("key", sa.Uuid()))', 'op.drop_column("items", "key")'
)
STAIRS = "alembic upgrade head && alembic downgrade base && alembic upgrade head"


def test_pasted_recipes_pass_lint_stairway_and_squawk(started: Project) -> None:
    """Each recipe is a revision. The first one comes from the command in the docs."""
    versions = started.path / "alembic" / "versions"
    started.uv("dev", "sh", "-c", 'alembic upgrade head && alembic revision -m "first"')
    (path,) = versions.glob("*_first_*.py")
    head = path.read_text().split("def upgrade")[0]
    recipes = RECIPES | {UUIDS: [ADD_KEY, *RECIPES[UUIDS]]}
    recipes[RENAME_NOT_NULL] = [  # of the column that the recipe before it has renamed
        body.replace("summary", "title").replace("description", "summary")
        for body in RECIPES[RENAME_NOT_NULL]
    ]
    (first, *others) = [body for bodies in recipes.values() for body in bodies]
    path.write_text(head + first)
    (name,) = re.findall(r'^revision: str = "(\w+)"', head, re.MULTILINE)
    write_revisions(versions, name, others)

    started.uv("ruff", "check")
    started.uv("ruff", "format", "--check")
    started.uv("dev", "sh", "-euc", STAIRS)
    (command,) = readmes.take(readmes.MIGRATIONS, "Check")
    assert f"{FIRST_REVISION}:head" in command
    assert "Found 0 issues" in started.run("sh", "-c", command).stdout


MODEL = {
    "from datetime import datetime\n": "from datetime import datetime\nfrom enum import StrEnum\n",
    "class Item(Base)": """class Status(StrEnum):
    DRAFT = "draft"
    DONE = "done"
    ARCHIVED = "archived"


class Item(Base)""",
    "    description:": "    status: Mapped[Status]\n    description:",
}
ADD_STATUS = (
    'alembic upgrade head && alembic revision --autogenerate -m "add" && alembic upgrade head'
)
REMOVE_VALUE = 'alembic revision --autogenerate -m "remove"'


def test_enum_recipe_adds_one_statement_to_the_generated_revision(started: Project) -> None:
    for old, new in MODEL.items():
        started.replace("app/models/item.py", old, new)
    started.uv("dev", "sh", "-euc", ADD_STATUS)
    started.replace("app/models/item.py", '    ARCHIVED = "archived"\n', "")
    started.uv("dev", "sh", "-euc", REMOVE_VALUE)
    (path,) = (started.path / "alembic" / "versions").glob("*_remove_*.py")
    generated, recipe = (
        [line for line in text.partition("def upgrade")[2].splitlines() if line.strip()]
        for text in (re.sub(r" *# ###.*\n", "", path.read_text()), RECIPES[ENUM][0])
    )
    end = generated.index("def downgrade() -> None:")
    (added,) = [line for line in recipe if "UPDATE items" in line]
    assert [line for line in recipe if line != added][:end] == generated[:end]
    assert recipe[recipe.index(added) + 1].endswith(
        'VALIDATE CONSTRAINT ck_items_status_2ac2aa21")'
    )


COLUMNS = {
    RENAME: ('Column("description", Text)', "Mapped[str | None]"),
    RENAME_NOT_NULL: ('Column("description", Text, nullable=False)', "Mapped[str]"),
}
MAPPER = '__mapper_args__ = Base.__mapper_args__ | {"exclude_properties": ["description"]}'
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
mv alembic/versions/{last}.py .
alembic upgrade head && alembic check && python code.py
mv {last}.py alembic/versions
alembic upgrade head && python code.py
"""


@pytest.mark.parametrize(
    "recipe", [pytest.param(RENAME, marks=pytest.mark.exhaustive), RENAME_NOT_NULL]
)
def test_renamed_column_works_at_both_of_its_revisions(started: Project, recipe: str) -> None:
    """With the model of the recipe, for which `alembic check` is clean."""
    prose = " ".join(readmes.read(readmes.MIGRATIONS).split())
    column, annotation = COLUMNS[recipe]
    assert f"`{column}`" in prose
    assert f"`{MAPPER}`" in prose
    renamed = {
        "import CheckConstraint,": "import CheckConstraint, Column, Text,",
        'name="name_length"),)': f'name="name_length"), {column})\n    {MAPPER}',
        "description: Mapped[str | None]": f"summary: {annotation}",
    }
    for old, new in renamed.items():
        started.replace("app/models/item.py", old, new)
    bodies = [*filter(None, [BEFORE.get(recipe)]), *RECIPES[recipe]]
    versions = started.path / "alembic" / "versions"
    *_, last = write_revisions(versions, FIRST_REVISION, bodies)
    (started.path / "code.py").write_text(CODE)
    output = started.uv("dev", "sh", "-euc", RELEASES.format(last=last))
    assert "['0']" in output
    assert "['0', '1']" in output
