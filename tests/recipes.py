"""The recipes of the generated README, on a table that somebody writes to all the while.

Run by a generated project's Python inside `uv run dev`, for all recipes or those named:

    python recipes.py stall ROWS [RECIPE …]      how long the writer waits for each step
    python recipes.py naive ROWS [RECIPE …]      the same for what one would write without them
    python recipes.py interrupt ROWS [RECIPE …]  stop each step everywhere, and run it again

Prints a line of JSON for each, with `error` in it if the migration or the writer failed, or if
a row or the schema was not as it should be.
"""

import json
import os
import re
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, NullPool, create_engine, event, make_url, text

FIRST_REVISION = "1f0c5e7a9b3d"
REVISION = '''"""{name}"""

import sqlalchemy as sa
from alembic import op

revision = "{name}"
down_revision = "{down}"
branch_labels = None
depends_on = None


{body}
'''

# What a recipe takes for granted: another recipe, by its name, or the body of a revision.
BEFORE = {
    "Make a column NOT NULL": "Backfill in batches",
    "Add a value to an enum": """
def upgrade() -> None:
    status = sa.Enum(
        "draft", "done", name="status", native_enum=False, length=None, create_constraint=True
    )
    op.add_column("items", sa.Column("status", status, server_default="draft", nullable=False))


def downgrade() -> None:
    op.drop_column("items", "status")
""",
}
# Recipes for which all descriptions are NULL at first, and none at last.
EMPTY = {"Backfill in batches", "Make a column NOT NULL"}
# The column that the writer knows while each of a recipe's revisions comes or goes.
WRITTEN = {"Rename a column": ["description", "summary"]}
# What new code does between the way up and the way down.
BETWEEN = {"Add a value to an enum": "UPDATE items SET status = 'archived' WHERE id % 1000 = 0"}
# Recipes that stop nobody while they wait, and so may wait for longer than for a lock.
PATIENT = {"Add an index"}
# What would be written without the recipe.
NAIVE = {
    "Backfill in batches": """
def upgrade() -> None:
    op.execute("UPDATE items SET description = '' WHERE description IS NULL")


def downgrade() -> None:
    pass
""",
    "Make a column NOT NULL": """
def upgrade() -> None:
    op.alter_column("items", "description", nullable=False)


def downgrade() -> None:
    op.alter_column("items", "description", nullable=True)
""",
    "Add a foreign key": """
def upgrade() -> None:
    op.add_column("items", sa.Column("parent_id", sa.BigInteger()))
    op.create_foreign_key(
        op.f("fk_items_parent_id_items"), "items", "items", ["parent_id"], ["id"]
    )


def downgrade() -> None:
    op.drop_column("items", "parent_id")
""",
    "Add an index": """
def upgrade() -> None:
    op.create_index(op.f("ix_items_created_at"), "items", ["created_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_items_created_at"), "items")
""",
}


def read_recipes(readme: Path) -> dict[str, list[str]]:
    """The recipes by name, each as the bodies of its revisions."""
    section = readme.read_text(encoding="utf-8").split("\n## Recipes for a busy table\n")[1]
    recipes = {}
    for part in section.split("\n## ")[0].split("\n### ")[1:]:
        name, prose = part.split("\n", 1)
        (code,) = re.findall(r"```python\n(.*?)```", prose, re.DOTALL)
        common, *bodies = re.split(r"# (?:First|Second) revision\n", code)
        recipes[name] = [common + body for body in bodies] or [common]
    return recipes


def write_revisions(versions: Path, down: str, bodies: list[str]) -> list[str]:
    """Write revisions that follow `down` and each other; their names."""
    names = []
    for body in bodies:
        name = f"recipe_{len(list(versions.glob('*.py')))}"
        filled = REVISION.format(name=name, down=down, body=body.strip())
        (versions / f"{name}.py").write_text(filled)
        names.append(down := name)
    return names


class Items:
    """The table, and for each row the text that it must hold.

    The text is the description, by whatever name.
    """

    def __init__(self, engine: Engine, rows: int, empty: bool) -> None:
        self.engine = engine
        self.rows = rows
        self.numbers = count()
        fill = """
            INSERT INTO items (name, description, created_at)
            SELECT n, CASE WHEN NOT :empty THEN 'seed ' || n END, now() - random() * interval '1y'
            FROM generate_series(1, :rows) AS n
        """
        with engine.begin() as connection:
            connection.execute(text(fill), {"rows": rows, "empty": empty})
            # Where autovacuum is at work, ALTER TABLE waits, and the writer with it, until it
            # gives way after deadlock_timeout: a second that is no recipe's.
            connection.execute(text("ALTER TABLE items SET (autovacuum_enabled = false)"))
            connection.execute(text("ANALYZE items"))
        self.texts = self.read("description")

    def read(self, column: str) -> dict[int, str | None]:
        with self.engine.connect() as connection:
            query = "SELECT id, {} FROM items"
            return {row.id: row[1] for row in connection.execute(text(query.format(column)))}

    def columns(self) -> list[str]:
        """Those that hold the text."""
        query = "SELECT attname FROM pg_attribute WHERE attrelid = 'items'::regclass"
        with self.engine.connect() as connection:
            return sorted({"description", "summary"} & set(connection.scalars(text(query))))

    def check(self) -> None:
        """Every row is there with what was last written to it; NULL may be filled."""
        for column in self.columns():
            found = self.read(column)
            assert found.keys() == self.texts.keys()
            wrong = {key for key in found if (found[key] or "") != (self.texts[key] or "")}
            assert not wrong, f"{column} of {len(wrong)} rows, such as {min(wrong)}"

    def write(self, connection: Connection, column: str) -> None:
        """Insert a row, or change an old one."""
        number = next(self.numbers)
        if number % 2:
            query = "INSERT INTO items (name, {}) VALUES (:text, :text) RETURNING id"
        else:
            query = "UPDATE items SET {} = :text WHERE id = :id RETURNING id"
        new = f"written {number}"
        values = {"text": new, "id": number * 7919 % self.rows + 1}
        self.texts[connection.execute(text(query.format(column)), values).scalar_one()] = new

    def write_to_all(self) -> None:
        """Write as old and new code do side by side."""
        columns = self.columns()
        with self.engine.begin() as connection:
            for _ in range(10):
                for column in columns:
                    self.write(connection, column)

    @contextmanager
    def written_to(self, column: str) -> Iterator[list[float]]:
        """Write all the while, one statement at a time: the moments when one was done."""
        moments: list[float] = []
        started, stop = Event(), Event()

        def write() -> None:
            engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
            try:
                with engine.connect() as connection:
                    while not stop.is_set():
                        self.write(connection, column)
                        moments.append(time.perf_counter())
                        started.set()
            finally:
                started.set()

        with ThreadPoolExecutor() as pool:
            writer = pool.submit(write)
            started.wait()
            try:
                yield moments
            finally:
                moments.append(time.perf_counter())
                stop.set()
            writer.result()  # its failure is ours


SCHEMA = text("""
    SELECT concat_ws(' ', attname, format_type(atttypid, atttypmod),
        CASE WHEN attnotnull THEN 'NOT NULL' END, pg_get_expr(adbin, adrelid))
    FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
    WHERE attrelid = 'items'::regclass AND attnum > 0 AND NOT attisdropped
    UNION SELECT concat_ws(' ', conname, pg_get_constraintdef(oid))
    FROM pg_constraint WHERE conrelid = 'items'::regclass AND contype <> 'n'
    UNION SELECT concat_ws(' ', pg_get_indexdef(indexrelid),
        CASE WHEN NOT indisvalid THEN 'INVALID' END)
    FROM pg_index WHERE indrelid = 'items'::regclass
    UNION SELECT pg_get_triggerdef(oid) FROM pg_trigger
    WHERE tgrelid = 'items'::regclass AND NOT tgisinternal
    UNION SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
""")


def schema(items: Items) -> set[str]:
    """The table's columns, constraints, indexes and triggers, and all functions."""
    with items.engine.connect() as connection:
        return set(connection.scalars(SCHEMA))


def difference(before: set[str], after: set[str]) -> list[str]:
    lines = [f"-{line}" for line in before - after] + [f"+{line}" for line in after - before]
    return sorted(lines)


def measure(items: Items, config: Config, recipe: str, path: list[str]) -> dict[str, object]:
    """Up the path of revisions and down again while somebody writes.

    `stalls` holds, for each step, the longest time in milliseconds without a write.
    """
    stalls = []

    def step(move: Callable[[Config, str], None], to: str, column: str) -> None:
        with items.written_to(column) as moments:
            move(config, to)
        longest = max(later - earlier for earlier, later in pairwise(sorted(moments)))
        stalls.append(round(1000 * longest, 1))
        items.write_to_all()
        items.check()

    columns = WRITTEN.get(recipe, ["description"])
    before = schema(items)
    for name, column in zip(path[1:], columns, strict=True):
        step(command.upgrade, name, column)
    changes = difference(before, schema(items))
    assert recipe not in EMPTY or None not in items.read("description").values()
    if recipe in BETWEEN:
        with items.engine.begin() as connection:
            connection.execute(text(BETWEEN[recipe]))
    for name, column in zip(path[-2::-1], reversed(columns), strict=True):
        step(command.downgrade, name, column)
    assert difference(before, schema(items)) == []
    return {"stalls": stalls, "changes": changes}


class StoppedError(Exception):
    """A migration ends here."""


@contextmanager
def stopped_after(number: int) -> Iterator[None]:
    """End the migration after so many statements that name the table."""
    numbers = count(1)

    def stop(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "items" in statement and next(numbers) == number:
            raise StoppedError

    event.listen(Engine, "after_cursor_execute", stop)
    try:
        yield
    finally:
        event.remove(Engine, "after_cursor_execute", stop)


def stop_everywhere(move: Callable[[], None]) -> None:
    """Stop after one statement, after two and so on, until it comes to its end."""
    for number in count(1):
        try:
            with stopped_after(number):
                move()
            return
        except StoppedError:
            continue


CANCEL = text("""
    SELECT pg_cancel_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'
    AND query_start < clock_timestamp() - interval '50 ms'
""")


def cancel_in_the_middle(items: Items, move: Callable[[], None]) -> BaseException | None:
    """Cancel the statement that waits for a transaction, which changed one row.

    It waits for longer than a lock timeout of `PATIENT` recipes would let it.
    """
    with ThreadPoolExecutor() as pool, items.engine.connect() as other:
        row = {"id": items.rows // 2}
        other.execute(text("UPDATE items SET updated_at = now() WHERE id = :id"), row)
        moved = pool.submit(move)
        autocommit = items.engine.execution_options(isolation_level="AUTOCOMMIT")
        with autocommit.connect() as connection:
            while not moved.done() and not connection.scalar(CANCEL):
                pass
        return moved.exception()


def interrupt(items: Items, config: Config, recipe: str, path: list[str]) -> dict[str, object]:
    """Up the path of revisions and down again, stopped everywhere.

    `left` and `filled` say what the first interruption left behind: the difference in the
    schema, and how many of the descriptions that were NULL are filled.
    """
    if recipe in PATIENT:
        os.environ["MIGRATION_LOCK_TIMEOUT"] = "1ms"
    before = schema(items)

    def step(move: Callable[[Config, str], None], to: str) -> dict[str, object]:
        moving = partial(move, config, to)
        error = cancel_in_the_middle(items, moving)
        assert error is None or "user request" in str(error), error
        texts = list(items.read(items.columns()[0]).values())
        left = {"left": difference(before, schema(items)), "filled": texts.count("")}
        stop_everywhere(moving)
        items.check()
        return {"error": "nothing was waited for"} if error is None else left

    first, *_ = [step(command.upgrade, name) for name in path[1:]]
    changes = difference(before, schema(items))
    for name in path[-2::-1]:
        step(command.downgrade, name)
    assert difference(before, schema(items)) == []
    return {"changes": changes, **first}


def carry_out(mode: str, rows: int, recipe: str) -> dict[str, object]:
    """In a new database and a copy of the project's revisions."""
    ini = Path(os.environ["ALEMBIC_CONFIG"])
    recipes = read_recipes(ini.with_name("README.md"))
    before = BEFORE.get(recipe)
    earlier = recipes.get(before, [before]) if before else []
    own = [NAIVE[recipe]] if mode == "naive" else recipes[recipe]
    with new_database() as engine, TemporaryDirectory() as directory:
        scripts = Path(directory) / "alembic"
        shutil.copytree(ini.with_name("alembic"), scripts)
        names = write_revisions(scripts / "versions", FIRST_REVISION, earlier + own)
        path = [FIRST_REVISION, *names][len(earlier) :]
        config = Config(ini)
        config.set_main_option("script_location", str(scripts))
        command.upgrade(config, FIRST_REVISION)
        items = Items(engine, rows, recipe in EMPTY)
        command.upgrade(config, path[0])
        run = interrupt if mode == "interrupt" else measure
        return run(items, config, recipe, path)


@contextmanager
def new_database() -> Iterator[Engine]:
    """A database beside the one that `dev` has, and the one that Alembic finds."""
    server = make_url(os.environ["DATABASE_URL_SYNC"]).set(username="postgres")
    url = server.set(database=f"recipe_{os.getpid()}")
    environment = os.environ.copy()
    engine = create_engine(server, poolclass=NullPool, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {url.database}"))
        del os.environ["DATABASE_URL"]
        os.environ["DATABASE_URL_SYNC"] = url.render_as_string(hide_password=False)
        try:
            yield create_engine(url, poolclass=NullPool)
        finally:
            os.environ.clear()
            os.environ.update(environment)
            connection.execute(text(f"DROP DATABASE {url.database} WITH (FORCE)"))


def main(mode: str, rows: str, *chosen: str) -> None:
    readme = Path(os.environ["ALEMBIC_CONFIG"]).with_name("README.md")
    for recipe in chosen or (NAIVE if mode == "naive" else read_recipes(readme)):
        try:
            result = carry_out(mode, int(rows), recipe)
        except Exception:
            result = {"error": traceback.format_exc()}
        print(json.dumps({"recipe": recipe, **result}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
