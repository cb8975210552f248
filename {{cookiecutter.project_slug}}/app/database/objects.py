"""The schemas, sequences and enum types of the models, which Alembic does not compare.

A revision creates the missing ones, and its downgrade drops them. One that no model uses any
more stays: others may use it.
"""

import logging
from collections.abc import Iterator
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Enum, MetaData, Sequence, inspect
from sqlalchemy.schema import CreateSequence, DropSequence

logger = logging.getLogger(__name__)


class AutocommitOp(ops.ExecuteSQLOp):
    """A statement outside the revision's transaction."""


@renderers.dispatch_for(AutocommitOp)
def render_autocommit(context: AutogenContext, operation: AutocommitOp) -> list[str]:
    return [
        "with op.get_context().autocommit_block():",
        f"op.execute({operation.sqltext!r})",
        "",  # ends the block
    ]


def objects_of(metadata: MetaData) -> list[Sequence | Enum]:
    """Return the sequences and native enums that the models need, in order of name."""
    columns = [column for table in metadata.tables.values() for column in table.columns]
    found: list[object] = [*metadata._sequences.values(), *(column.type for column in columns)]
    found += [getattr(column.type, "item_type", None) for column in columns]
    defaults = [getattr(column.server_default, "arg", None) for column in columns]
    found += [getattr(default, "sequence", None) for default in defaults]
    objects = {
        (item.schema or "", str(item.name)): item
        for item in found
        if (isinstance(item, Sequence) and not item.optional)
        or (isinstance(item, Enum) and item.native_enum and getattr(item, "create_type", True))
    }
    return [objects[key] for key in sorted(objects)]


def add_objects(script: ops.MigrationScript, migration: MigrationContext) -> None:
    """Let the script create what is missing before its tables, and drop it after them."""
    metadata, dialect = migration.opts["target_metadata"], migration.dialect
    items, up, down = objects_of(metadata), script.upgrade_ops, script.downgrade_ops
    schemas = {item.schema for item in (*metadata.tables.values(), *items) if item.schema}
    if up is None or down is None or (not schemas and not items):
        return
    inspector: Any = inspect(migration.connection)  # `get_enums` is PostgreSQL's own
    parts = [part for table in up.ops for part in getattr(table, "ops", ())]
    repeats = any(isinstance(part, AutocommitOp) for part in parts)
    steps: list[list[str]] = []
    values: list[AutocommitOp] = []
    for schema in sorted(schemas.difference(inspector.get_schema_names())):
        name = dialect.identifier_preparer.quote_schema(schema)
        steps.append([f"CREATE SCHEMA IF NOT EXISTS {name}", f"DROP SCHEMA {name}"])
    for item in items:
        if isinstance(item, Sequence):
            if not inspector.has_sequence(item.name, item.schema):
                clauses = CreateSequence(item, if_not_exists=True), DropSequence(item)
                steps.append([str(clause.compile(dialect=dialect)) for clause in clauses])
            continue
        name = item.compile(dialect)
        known = {kind["name"]: kind["labels"] for kind in inspector.get_enums(item.schema)}
        if item.name in known:
            values += add_values(name, item.enums, known[item.name])
        else:
            create = f"CREATE TYPE {name} AS ENUM ({', '.join(map(literal, item.enums))})"
            if repeats:  # a commit in the middle: an interrupted revision begins again
                create = f"DO $$ BEGIN {create}; EXCEPTION WHEN duplicate_object THEN END $$"
            steps.append([create, f"DROP TYPE {name}"])
    up.ops[:0] = [*values, *(ops.ExecuteSQLOp(create) for create, _ in steps)]
    down.ops += [ops.ExecuteSQLOp(drop) for _, drop in reversed(steps)]


def add_values(name: str, wanted: list[str], known: list[str]) -> Iterator[AutocommitOp]:
    """Yield a statement for each value that the type lacks, in the order of the model."""
    for before, value in zip([None, *wanted], wanted, strict=False):
        if value not in known:
            place = f"AFTER {literal(before)}" if before else f"BEFORE {literal(known[0])}"
            yield AutocommitOp(
                f"ALTER TYPE {name} ADD VALUE IF NOT EXISTS {literal(value)} {place}"
            )
    if left := [value for value in known if value not in wanted]:
        logger.warning("The type %s keeps %s: PostgreSQL removes no value of it", name, left)


def literal(value: str) -> str:
    """Quote a value for `text`, in which a colon begins a parameter."""
    return "'{}'".format(value.replace("'", "''").replace(":", r"\:"))
