"""What autogenerate compares, and how it writes a revision."""

import logging
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import (
    AddColumnOp,
    CreateCheckConstraintOp,
    CreateTableOp,
    DropColumnOp,
    DropConstraintOp,
    DropTableOp,
    MigrateOperation,
    MigrationScript,
    ModifyTableOps,
    OpContainer,
)
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, Column, Connection, Enum, MetaData, String, text
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql.elements import BinaryExpression
from sqlalchemy.types import TypeDecorator
from sqlalchemy.util import generic_repr

logger = logging.getLogger(__name__)

FOREIGN_TABLES = text("""
    SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_table_is_visible(pg_class.oid) AND (
        relispartition OR nspname <> current_schema() OR EXISTS (
            SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e'
        )
    )
""")


def autogenerate_options(connection: Connection, metadata: MetaData) -> dict[str, Any]:
    """Return the arguments of `context.configure` that decide what autogenerate compares."""

    @cache
    def foreign_tables() -> set[str | None]:
        # Asked on first use: a query before configure() would begin a transaction.
        return set(connection.scalars(FOREIGN_TABLES))

    def include_name(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
        """Leave out the tables of extensions and other schemas, and partitions."""
        return kind != "table" or name not in foreign_tables()

    def include_object(
        item: SchemaItem, name: str | None, kind: str, reflected: bool, other: object
    ) -> bool:
        """Leave out a CHECK that only the database has, if the model has CHECKs without a name.

        PostgreSQL names those itself, so this may be one of them.
        """
        if reflected and other is None and isinstance(item, CheckConstraint):
            checks = metadata.tables[item.table.key].constraints
            return all(not isinstance(c, CheckConstraint) or is_named(c) for c in checks)
        return True

    return {
        # The second plugin compares CHECK constraints by name. `Base` names all of them.
        "autogenerate_plugins": ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
        "compare_type": compare_type,
        "compare_server_default": True,
        "include_name": include_name,
        "include_object": include_object,
        "process_revision_directives": review,
        "render_item": render_custom_type,
    }


def is_named(check: CheckConstraint) -> bool:
    return isinstance(check.name, str)


def compare_type(
    context: MigrationContext, found: object, wanted: object, old: object, new: object
) -> bool | None:
    """Compare an enum as the string that it is in the database; None leaves others to Alembic."""
    if isinstance(new, Enum) and not new.native_enum and isinstance(old, String):
        return old.length != new.length
    return None


def render_custom_type(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """Import the module of a custom type. Returns False where Alembic renders it well itself."""
    module = type(item).__module__
    if kind != "type" or module.startswith("sqlalchemy."):
        return False
    context.imports.add(f"import {module}")
    own = type(item)
    if (
        isinstance(item, TypeDecorator)
        and own.__init__ is not TypeDecorator.__init__
        and own.__repr__ is TypeDecorator.__repr__
    ):
        return f"{module}.{generic_repr(item)}"  # with its own arguments, not those of `impl`
    return False


def review(
    migration: MigrationContext, revision: object, directives: list[MigrationScript]
) -> None:
    """Write no empty revision, add CHECKs without blocking writers, and warn of drops."""
    for script in directives:
        if script.upgrade_ops is None or script.upgrade_ops.is_empty():
            # `alembic check` needs the empty script; `alembic revision` has a message or option.
            command_line = migration.config.cmd_opts if migration.config else None
            if getattr(command_line, "autogenerate", script.message is not None):
                logger.warning("Models and database agree: no revision was written")
                directives.clear()
            return
        for operations in filter(None, (script.upgrade_ops, script.downgrade_ops)):
            add_column_checks(operations)
            validate_checks_apart(operations)
        drops = [f"DROPS {name}" for name in find_drops(script.upgrade_ops)]
        for drop in drops:
            logger.warning("The new revision %s: is that meant?", drop)
        migration.opts["template_args"]["drops"] = drops


def add_column_checks(operations: OpContainer) -> None:
    """Give new tables the CHECK constraints of their columns, which Alembic leaves out."""
    for operation in operations.ops:
        if isinstance(operation, CreateTableOp):
            columns = [item for item in operation.columns if isinstance(item, Column)]
            checks = [
                CheckConstraint(check.sqltext, name=check.name)
                for column in columns
                for check in column.constraints
                if isinstance(check, CheckConstraint)
            ]
            operation.columns = [*operation.columns, *checks]


class ValidateConstraintOp(MigrateOperation):
    """VALIDATE CONSTRAINT outside the revision's transaction: it reads while others write."""

    def __init__(self, check: CreateCheckConstraintOp) -> None:
        self.table = [name for name in (check.schema, check.table_name) if name]
        self.name = str(check.constraint_name)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("validate_constraint", self.table, self.name)


@renderers.dispatch_for(ValidateConstraintOp)
def render_validation(context: AutogenContext, operation: ValidateConstraintOp) -> list[str]:
    quote = context.migration_context.dialect.identifier_preparer.quote
    table, name = ".".join(map(quote, operation.table)), quote(operation.name)
    return [
        "with op.get_context().autocommit_block():",
        f"op.execute({f'ALTER TABLE {table} VALIDATE CONSTRAINT {name}'!r})",
        "",  # ends the block
    ]


def validate_checks_apart(operations: OpContainer) -> None:
    """Add each CHECK of an existing column as NOT VALID, and validate it afterwards.

    The validation commits what precedes it. So these operations come first and can be
    repeated: an interrupted revision runs again from its beginning.
    """
    first: list[MigrateOperation] = []
    for table in [part for part in operations.ops if isinstance(part, ModifyTableOps)]:
        new_columns = {part.column.name for part in table.ops if isinstance(part, AddColumnOp)}
        adds, drops = [], []
        for part in table.ops.copy():
            if isinstance(part, DropConstraintOp) and part.constraint_type == "check":
                drops.append(part)
            elif not isinstance(part, CreateCheckConstraintOp):
                continue
            elif not new_columns & set(re.findall(r"\w+", str(part.condition))):
                adds.append(part)
            elif isinstance(part.condition, BinaryExpression):
                table.ops.remove(part)  # the enum type of the new column brings its CHECK
        if adds:
            table.ops = [part for part in table.ops if part not in [*adds, *drops]]
            steps = [step for add in adds for step in add_online(add)]
            steps = [*map(tolerate_absence, drops), *steps]
            first.append(ModifyTableOps(table.table_name, steps, schema=table.schema))
    operations.ops = [*first, *operations.ops]


def add_online(add: CreateCheckConstraintOp) -> list[MigrateOperation]:
    """Return the operations that add a CHECK without stopping those who write."""
    add.kw["postgresql_not_valid"] = True
    left_over = DropConstraintOp.from_constraint(add.to_constraint())
    return [tolerate_absence(left_over), add, ValidateConstraintOp(add)]


def tolerate_absence(drop: DropConstraintOp) -> DropConstraintOp:
    drop.if_exists = True
    return drop


def find_drops(operation: object) -> Iterator[str]:
    """Yield the tables and columns that an operation removes, with their data."""
    if isinstance(operation, DropTableOp):
        yield f"the table {operation.table_name}"
    elif isinstance(operation, DropColumnOp):
        yield f"the column {operation.table_name}.{operation.column_name}"
    for part in getattr(operation, "ops", []):
        yield from find_drops(part)
