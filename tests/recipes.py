"""Perform the recipes of docs/migrations.md on a table that another connection writes to.

Runs with the Python of a generated project, in `uv run dev`, for all recipes or the named ones:

    python recipes.py stall ROWS [RECIPE ...]      measure how long the writer waits
    python recipes.py naive ROWS [RECIPE ...]      the same for the plain operation
    python recipes.py interrupt ROWS [RECIPE ...]  stop after each statement, and run again

Prints one line of JSON per recipe. It has the key `error` if the migration or the writer failed,
or if a row or the schema is wrong afterwards.
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
BODY = """def upgrade() -> None:
    {}


def downgrade() -> None:
    {}
"""

ENUM = "Remove a value from an enum"
# The part of the enum's revision that the recipe leaves out, as autogenerate writes it.
ENUM_UPGRADE = """\
    op.drop_constraint(op.f("ck_items_status_447fc8fc"), "items", type_="check", if_exists=True)
    op.drop_constraint(op.f("ck_items_status_2ac2aa21"), "items", type_="check", if_exists=True)
    op.create_check_constraint(
        op.f("ck_items_status_2ac2aa21"),
        "items",
        "status IN ('draft', 'done')",
        postgresql_not_valid=True,
    )
"""
ENUM_DOWNGRADE = """

def downgrade() -> None:
    op.drop_constraint(op.f("ck_items_status_2ac2aa21"), "items", type_="check", if_exists=True)
    op.drop_constraint(op.f("ck_items_status_447fc8fc"), "items", type_="check", if_exists=True)
    op.create_check_constraint(
        op.f("ck_items_status_447fc8fc"),
        "items",
        "status IN ('draft', 'done', 'archived')",
        postgresql_not_valid=True,
    )
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE items VALIDATE CONSTRAINT ck_items_status_447fc8fc")
"""

RENAME, RENAME_NOT_NULL = "Rename a column", "Rename a NOT NULL column"
UUIDS = "Backfill in batches over UUIDs"
# A key in the order of `id`, so that an interruption leaves the same rows each time.
ADD_KEY = """op.add_column("items", sa.Column("key", sa.Uuid()))
    op.execute("UPDATE items SET key = lpad(to_hex(id), 32, '0')::uuid")
    op.execute("ALTER TABLE items ALTER key SET DEFAULT gen_random_uuid()")
    op.create_index("ix_items_key", "items", ["key"])"""

# The recipe or the body of a revision that comes before a recipe.
BEFORE = {
    UUIDS: BODY.format(ADD_KEY, 'op.drop_column("items", "key")'),
    RENAME_NOT_NULL: BODY.format(
        'op.alter_column("items", "description", nullable=False)',
        'op.alter_column("items", "description", nullable=True)',
    ),
    "Make a column NOT NULL": "Backfill in batches",
    ENUM: BODY.format(
        """op.add_column("items", sa.Column("status", sa.Text(), server_default="draft"))
    values = "status IN ('draft', 'done', 'archived')"
    op.create_check_constraint(op.f("ck_items_status_447fc8fc"), "items", values)
    op.execute("UPDATE items SET status = 'archived' WHERE id % 1000 = 0")""",
        'op.drop_column("items", "status")',
    ),
}
# These recipes find only NULL in the column and leave none.
FROM_NULL = {"Backfill in batches", UUIDS, "Make a column NOT NULL"}
# The column that the writer uses while each revision of a recipe is applied or reverted.
WRITTEN = {name: ["description", "summary"] for name in (RENAME, RENAME_NOT_NULL)}
# This recipe blocks nobody while it waits, so it waits longer than for a table's lock.
NO_LOCK_TIMEOUT = {"Add an index"}
NAIVE = {
    "Backfill in batches": BODY.format(
        """op.execute("UPDATE items SET description = '' WHERE description IS NULL")""", "pass"
    ),
    "Make a column NOT NULL": BODY.format(
        'op.alter_column("items", "description", nullable=False)',
        'op.alter_column("items", "description", nullable=True)',
    ),
    "Add a foreign key": BODY.format(
        """op.add_column("items", sa.Column("parent_id", sa.BigInteger()))
    op.create_foreign_key("fk_items_parent_id_items", "items", "items", ["parent_id"], ["id"])""",
        'op.drop_column("items", "parent_id")',
    ),
    "Add an index": BODY.format(
        'op.create_index("ix_items_created_at", "items", ["created_at"])',
        'op.drop_index("ix_items_created_at", "items")',
    ),
}


def read_recipes(page: Path) -> dict[str, list[str]]:
    """Return the bodies of each recipe's revisions, by the recipe's heading."""
    section = page.read_text(encoding="utf-8").split("\n## Recipes for a busy table\n")[1]
    recipes = {}
    for part in section.split("\n## ")[0].split("\n### ")[1:]:
        name, prose = part.split("\n", 1)
        (code,) = re.findall(r"```python\n(.*?)```", prose, re.DOTALL)
        common, *bodies = re.split(r"# (?:First|Second) revision\n", code)
        recipes[name] = [common + body for body in bodies] or [common]
    (excerpt,) = recipes[ENUM]
    complete, number = re.subn(r"    \.\.\.  # as generated.*\n", ENUM_UPGRADE, excerpt)
    assert number == 1, f"{ENUM} does not say where the generated lines go"
    recipes[ENUM] = [complete + ENUM_DOWNGRADE]
    recipes[UUIDS] = [re.sub(r"\bid\b", "key", body) for body in recipes[UUIDS]]
    end = "\n\n\ndef drop_copy("
    (excerpt,) = recipes[RENAME_NOT_NULL]
    recipes[RENAME_NOT_NULL] = [
        body.replace(end, f"\n{excerpt.rstrip()}{end}") for body in recipes[RENAME]
    ]
    return recipes


def write_revisions(versions: Path, down: str, bodies: list[str]) -> list[str]:
    """Write a chain of revisions that follows `down`, and return their names."""
    names = []
    for body in bodies:
        name = f"recipe_{len(list(versions.glob('*.py')))}"
        filled = REVISION.format(name=name, down=down, body=body.strip())
        (versions / f"{name}.py").write_text(filled)
        names.append(down := name)
    return names


class Items:
    """The table, and the text that each row must hold: the description, by any column name."""

    def __init__(self, engine: Engine, rows: int, null: bool) -> None:
        self.engine = engine
        self.rows = rows
        self.numbers = count()
        fill = """
            INSERT INTO items (name, description, created_at)
            SELECT n, CASE WHEN NOT :null THEN 'seed ' || n END, now() - random() * interval '1y'
            FROM generate_series(1, :rows) AS n
        """
        with engine.begin() as connection:
            connection.execute(text(fill), {"rows": rows, "null": null})
            # ALTER TABLE waits a second for autovacuum, and the writer waits behind it. The
            # recipe does not cause that wait.
            connection.execute(text("ALTER TABLE items SET (autovacuum_enabled = false)"))
            connection.execute(text("ANALYZE items"))
        self.texts = self.read("description")

    def read(self, column: str) -> dict[int, str | None]:
        query = "SELECT id, {} FROM items"
        with self.engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(text(query.format(column)))}

    def columns(self) -> list[str]:
        """Return the columns that hold the text."""
        query = "SELECT attname FROM pg_attribute WHERE attrelid = 'items'::regclass"
        with self.engine.connect() as connection:
            return sorted({"description", "summary"} & set(connection.scalars(text(query))))

    def check(self) -> None:
        """Compare every row with the last write to it. NULL may have been filled."""
        for column in self.columns():
            found = self.read(column)
            assert found.keys() == self.texts.keys()
            wrong = {key for key in found if (found[key] or "") != (self.texts[key] or "")}
            assert not wrong, f"{column} is wrong in {len(wrong)} rows, such as {min(wrong)}"

    def write(self, connection: Connection, column: str) -> None:
        """Insert a row or update an old one, in turn."""
        number = next(self.numbers)
        if number % 2:
            query = "INSERT INTO items (name, {}) VALUES (:text, :text) RETURNING id"
        else:
            query = "UPDATE items SET {} = :text WHERE id = :id RETURNING id"
        new = f"written {number}"
        values = {"text": new, "id": number * 7919 % self.rows + 1}
        self.texts[connection.execute(text(query.format(column)), values).scalar_one()] = new

    def write_to_all(self) -> None:
        """Write as old and new code do at the same time."""
        columns = self.columns()
        with self.engine.begin() as connection:
            for _ in range(10):
                for column in columns:
                    self.write(connection, column)

    @contextmanager
    def written_to(self, column: str) -> Iterator[list[float]]:
        """Write in another thread. Yields the times at which a statement was done."""
        times: list[float] = []
        started, stop = Event(), Event()

        def write() -> None:
            engine = self.engine.execution_options(isolation_level="AUTOCOMMIT")
            try:
                with engine.connect() as connection:
                    while not stop.is_set():
                        self.write(connection, column)
                        times.append(time.perf_counter())
                        started.set()
            finally:
                started.set()

        with ThreadPoolExecutor() as pool:
            writer = pool.submit(write)
            started.wait()
            try:
                yield times
            finally:
                times.append(time.perf_counter())
                stop.set()
            writer.result()  # raises the writer's error


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
    """Return the table's columns, constraints, indexes and triggers, and all functions."""
    with items.engine.connect() as connection:
        return set(connection.scalars(SCHEMA))


def difference(before: set[str], after: set[str]) -> list[str]:
    return sorted(
        [f"-{line}" for line in before - after] + [f"+{line}" for line in after - before]
    )


def measure(items: Items, config: Config, recipe: str, path: list[str]) -> dict[str, object]:
    """Apply and revert the revisions while another connection writes.

    `stalls` is the longest time without a write during each step, in milliseconds.
    """
    stalls = []

    def step(move: Callable[[Config, str], None], to: str, column: str) -> None:
        with items.written_to(column) as times:
            move(config, to)
        longest = max(later - earlier for earlier, later in pairwise(sorted(times)))
        stalls.append(round(1000 * longest, 1))
        items.write_to_all()
        items.check()

    columns = WRITTEN.get(recipe, ["description"])
    before = schema(items)
    for name, column in zip(path[1:], columns, strict=True):
        step(command.upgrade, name, column)
    changes = difference(before, schema(items))
    assert recipe not in FROM_NULL or None not in items.read("description").values()
    for name, column in zip(path[-2::-1], reversed(columns), strict=True):
        step(command.downgrade, name, column)
    assert difference(before, schema(items)) == []
    return {"stalls": stalls, "changes": changes}


class StoppedError(Exception):
    """The migration was stopped on purpose."""


@contextmanager
def stopped_after(number: int) -> Iterator[None]:
    """Stop the migration after this number of statements that name the table."""
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
    """Stop after one statement, after two and so on, until the migration reaches its end."""
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
    """Cancel the statement that waits for the transaction of another connection.

    The statement waits for longer than the lock timeout of a `NO_LOCK_TIMEOUT` recipe.
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
    """Apply and revert the revisions, and stop them after each statement.

    `left` and `filled` describe the state after the first interruption: the difference in the
    schema, and the number of descriptions that were NULL and are filled.
    """
    if recipe in NO_LOCK_TIMEOUT:
        os.environ["MIGRATION_LOCK_TIMEOUT_SECONDS"] = "0.001"
    before = schema(items)

    def step(move: Callable[[Config, str], None], to: str) -> dict[str, object]:
        moving = partial(move, config, to)
        error = cancel_in_the_middle(items, moving)
        assert error is None or "user request" in str(error), error
        texts = list(items.read(items.columns()[0]).values())
        left = {"left": difference(before, schema(items)), "filled": texts.count("")}
        stop_everywhere(moving)
        items.check()
        return {"error": "no statement waited"} if error is None else left

    first, *_ = [step(command.upgrade, name) for name in path[1:]]
    changes = difference(before, schema(items))
    for name in path[-2::-1]:
        step(command.downgrade, name)
    assert difference(before, schema(items)) == []
    return {"changes": changes, **first}


def perform(mode: str, rows: int, recipe: str) -> dict[str, object]:
    """Perform a recipe in a new database and in a copy of the project's revisions."""
    root = Path(os.environ["ALEMBIC_CONFIG"]).parent
    recipes = read_recipes(root / "docs" / "migrations.md")
    before = BEFORE.get(recipe)
    earlier = recipes.get(before, [before]) if before else []
    own = [NAIVE[recipe]] if mode == "naive" else recipes[recipe]
    with new_database() as engine, TemporaryDirectory() as directory:
        scripts = Path(directory) / "alembic"
        shutil.copytree(root / "alembic", scripts)
        names = write_revisions(scripts / "versions", FIRST_REVISION, earlier + own)
        path = [FIRST_REVISION, *names][len(earlier) :]
        config = Config(root / "alembic.ini")
        config.set_main_option("script_location", str(scripts))
        command.upgrade(config, FIRST_REVISION)
        items = Items(engine, rows, recipe in FROM_NULL)
        command.upgrade(config, path[0])
        run = interrupt if mode == "interrupt" else measure
        return run(items, config, recipe, path)


@contextmanager
def new_database() -> Iterator[Engine]:
    """Create a database on the server of `uv run dev`, and make it Alembic's database."""
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
    page = Path(os.environ["ALEMBIC_CONFIG"]).with_name("docs") / "migrations.md"
    for recipe in chosen or (NAIVE if mode == "naive" else read_recipes(page)):
        try:
            result = perform(mode, int(rows), recipe)
        except Exception:
            result = {"error": traceback.format_exc()}
        print(json.dumps({"recipe": recipe, **result}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
