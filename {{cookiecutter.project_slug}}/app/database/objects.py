"""Compares schemas, sequences and enum types of the models, which Alembic does not."""

import logging
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Enum, MetaData, Sequence, inspect, literal
from sqlalchemy.dialects.postgresql import CreateEnumType, DropEnumType
from sqlalchemy.schema import CreateSchema, CreateSequence, DropSchema, DropSequence
from sqlalchemy.sql import ClauseElement

logger = logging.getLogger(__name__)


class AutocommitOp(ops.ExecuteSQLOp):
    """A statement outside the revision's transaction."""


@renderers.dispatch_for(AutocommitOp)
def render_autocommit(context: AutogenContext, operation: AutocommitOp) -> list[str]:
    block = "with op.get_context().autocommit_block():"
    return [block, f"op.execute({operation.sqltext!r})", ""]  # the empty line ends the block


def add_objects(up: ops.OpContainer, down: ops.OpContainer, migration: MigrationContext) -> None:
    """Create what is missing before the tables, and drop it after them."""
    metadata = migration.opts["target_metadata"]
    items = objects_of(metadata)
    schemas = {item.schema for item in (*metadata.tables.values(), *items) if item.schema}
    inspector: Any = inspect(migration.connection)  # `get_enums` is PostgreSQL's own
    values: list[AutocommitOp] = []
    steps: list[tuple[ClauseElement, ClauseElement]] = []
    for schema in sorted(schemas.difference(inspector.get_schema_names())):
        steps.append((CreateSchema(schema, if_not_exists=True), DropSchema(schema)))
    for item in items:
        if isinstance(item, Sequence):
            if not inspector.has_sequence(item.name, item.schema):
                steps.append((CreateSequence(item, if_not_exists=True), DropSequence(item)))
            continue
        known = {kind["name"]: kind["labels"] for kind in inspector.get_enums(item.schema)}
        if item.name in known:
            values += add_values(item, known[item.name], migration)
        else:
            steps.append((CreateEnumType(item), DropEnumType(item)))
    up.ops[:0] = [*values, *(ops.ExecuteSQLOp(write(create, migration)) for create, _ in steps)]
    down.ops += [ops.ExecuteSQLOp(write(drop, migration)) for _, drop in reversed(steps)]


def objects_of(metadata: MetaData) -> list[Sequence | Enum]:
    """Return the sequences and native enums that the models need, in order of name."""
    found: list[object] = [*metadata._sequences.values()]
    for column in (column for table in metadata.tables.values() for column in table.columns):
        kind, default = column.type, getattr(column.server_default, "arg", None)
        found += [kind, getattr(kind, "item_type", None), getattr(default, "sequence", None)]
    objects = {
        (item.schema or "", str(item.name)): item
        for item in found
        if (isinstance(item, Sequence) and not item.optional)
        or (isinstance(item, Enum) and item.native_enum and getattr(item, "create_type", True))
    }
    return [objects[key] for key in sorted(objects)]


def add_values(item: Enum, known: list[str], context: MigrationContext) -> Iterator[AutocommitOp]:
    """Yield a statement for each value that the type lacks, in the order of the model."""
    name = item.compile(context.dialect)
    for before, value in pairwise([None, *item.enums]):
        if value not in known:
            new, other = (write(literal(label), context) for label in (value, before or known[0]))
            place = f"{'AFTER' if before else 'BEFORE'} {other}"
            yield AutocommitOp(f"ALTER TYPE {name} ADD VALUE IF NOT EXISTS {new} {place}")
    if left := [value for value in known if value not in item.enums]:
        logger.warning("The type %s keeps %s: PostgreSQL removes no value of it", name, left)


def write(element: ClauseElement, context: MigrationContext) -> str:
    """Write an element for `op.execute`, in which a colon begins a parameter."""
    sql = context.impl.render_ddl_sql_expr(element).replace(":", r"\:")
    if isinstance(element, CreateEnumType):  # which has no IF NOT EXISTS
        return f"DO $$ BEGIN {sql}; EXCEPTION WHEN duplicate_object THEN END $$"
    return sql
