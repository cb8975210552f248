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
from sqlalchemy import Connection, Enum, MetaData, Sequence, inspect
from sqlalchemy.schema import CreateSequence, DropSequence
from sqlalchemy.sql.compiler import IdentifierPreparer

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
    found: list[object] = [*metadata._sequences.values()]
    for table in metadata.tables.values():
        for column in table.columns:
            default = getattr(column.server_default, "arg", None)
            found += [getattr(default, "sequence", None), getattr(column.type, "item_type", None)]
            found.append(column.type)
    objects = {
        (item.schema or "", str(item.name)): item
        for item in found
        if (isinstance(item, Sequence) and not item.optional)
        or (isinstance(item, Enum) and item.native_enum and getattr(item, "create_type", True))
    }
    return [objects[key] for key in sorted(objects)]


def add_objects(script: ops.MigrationScript, connection: Connection, metadata: MetaData) -> None:
    """Let the script create what is missing before its tables, and drop it after them."""
    items = objects_of(metadata)
    schemas = {item.schema for item in (*metadata.tables.values(), *items) if item.schema}
    if script.upgrade_ops is None or script.downgrade_ops is None or not (items or schemas):
        return
    inspector: Any = inspect(connection)  # `get_enums` is PostgreSQL's own
    quote = connection.dialect.identifier_preparer
    steps: list[tuple[str, str]] = []
    values: list[AutocommitOp] = []
    # A revision that commits in between may run again.
    parts = [part for table in script.upgrade_ops.ops for part in getattr(table, "ops", [])]
    again = any(isinstance(part, AutocommitOp) for part in parts)
    for schema in sorted(schemas.difference(inspector.get_schema_names())):
        name = quote.quote_schema(schema)
        steps.append((f"CREATE SCHEMA IF NOT EXISTS {name}", f"DROP SCHEMA {name}"))
    for item in items:
        if isinstance(item, Sequence):
            if not inspector.has_sequence(item.name, item.schema):
                clauses = CreateSequence(item, if_not_exists=True), DropSequence(item)
                create, drop = (str(clause.compile(connection)) for clause in clauses)
                steps.append((create, drop))
            continue
        known = {kind["name"]: kind["labels"] for kind in inspector.get_enums(item.schema)}
        if item.name in known:
            values += add_values(item, known[item.name], quote)
        else:
            steps.append(create_enum(item, quote, again))
    created = [ops.ExecuteSQLOp(create) for create, _ in steps]
    script.upgrade_ops.ops = [*values, *created, *script.upgrade_ops.ops]
    script.downgrade_ops.ops += [ops.ExecuteSQLOp(drop) for _, drop in reversed(steps)]


def create_enum(item: Enum, quote: IdentifierPreparer, again: bool) -> tuple[str, str]:
    name, labels = type_name(item, quote), ", ".join(map(literal, item.enums))
    create = f"CREATE TYPE {name} AS ENUM ({labels})"
    if again:
        create = f"DO $$ BEGIN {create}; EXCEPTION WHEN duplicate_object THEN END $$"
    return create, f"DROP TYPE {name}"


def add_values(item: Enum, known: list[str], quote: IdentifierPreparer) -> Iterator[AutocommitOp]:
    """Yield a statement for each value that the type lacks, which keeps the order of values."""
    name = type_name(item, quote)
    for before, value in zip([None, *item.enums], item.enums, strict=False):
        if value not in known:
            place = f"AFTER {literal(before)}" if before else f"BEFORE {literal(known[0])}"
            yield AutocommitOp(
                f"ALTER TYPE {name} ADD VALUE IF NOT EXISTS {literal(value)} {place}"
            )
    if left := [value for value in known if value not in item.enums]:
        logger.warning("The type %s keeps %s: PostgreSQL removes no value of a type", name, left)


def type_name(item: Enum, quote: IdentifierPreparer) -> str:
    schema = f"{quote.quote_schema(item.schema)}." if item.schema else ""
    return schema + quote.quote(str(item.name))


def literal(value: str) -> str:
    """Quote a value for `text`, in which a colon begins a parameter."""
    return "'{}'".format(value.replace("'", "''").replace(":", r"\:"))
