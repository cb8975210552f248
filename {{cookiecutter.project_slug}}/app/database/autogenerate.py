"""What autogenerate compares, and how it writes a revision."""

import logging
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal

from alembic.autogenerate import renderers
from alembic.autogenerate.api import AutogenContext
from alembic.ddl.impl import DefaultImpl
from alembic.operations.ops import (
    AddColumnOp,
    CreateCheckConstraintOp,
    CreateTableOp,
    DropColumnOp,
    DropConstraintOp,
    DropTableOp,
    ExecuteSQLOp,
    MigrationScript,
    ModifyTableOps,
    OpContainer,
)
from alembic.runtime.migration import MigrationContext
from sqlalchemy import CheckConstraint, Column, Connection, Enum, MetaData, String, text
from sqlalchemy.schema import SchemaItem
from sqlalchemy.sql.compiler import IdentifierPreparer
from sqlalchemy.types import TypeDecorator
from sqlalchemy.util import generic_repr

from .base import is_enum_check

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
        "render_item": render_type,
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


def render_type(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """Render enums as text and import custom types. False leaves the item to Alembic."""
    module = type(item).__module__
    if isinstance(item, Enum) and item.create_constraint and item.name and not item.native_enum:
        # Its CHECK is an operation of its own. `sa.Enum` would add it without NOT VALID.
        return f"sa.String({item.length})" if item.length else "sa.Text()"
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
            write_out_checks(operations, migration.impl)
            add_checks_online(operations, migration.dialect.identifier_preparer)
        drops = [f"DROPS {name}" for name in find_drops(script.upgrade_ops)]
        for drop in drops:
            logger.warning("The new revision %s: is that intended?", drop)
        migration.opts["template_args"]["drops"] = drops


def write_out_checks(operations: OpContainer, impl: DefaultImpl) -> None:
    """Give new tables the CHECK constraints of enums and columns, which Alembic omits."""

    def plain(check: CheckConstraint) -> CheckConstraint:
        # Text, since a new constraint with an expression would add itself to the model.
        return CheckConstraint(impl.render_ddl_sql_expr(check.sqltext), name=check.name)

    for table in [part for part in operations.ops if isinstance(part, CreateTableOp)]:
        columns = [item for item in table.columns if isinstance(item, Column)]
        table.columns = [
            *(
                plain(item) if is_enum_check(item) and is_named(item) else item
                for item in table.columns
            ),
            *(
                plain(check)
                for column in columns
                for check in column.constraints
                if isinstance(check, CheckConstraint)
            ),
        ]


def add_checks_online(operations: OpContainer, preparer: IdentifierPreparer) -> None:
    """Add CHECKs to an existing table as NOT VALID, and validate them while others write.

    The validation commits what precedes it. So these operations come first and can be
    repeated: an interrupted revision runs again from its beginning.
    """
    first = []
    for table in [part for part in operations.ops if isinstance(part, ModifyTableOps)]:
        checks = [part for part in table.ops if isinstance(part, CreateCheckConstraintOp)]
        if not checks:
            continue
        columns = [part for part in table.ops if isinstance(part, AddColumnOp)]
        drops = [
            part
            for part in table.ops
            if isinstance(part, DropConstraintOp) and part.constraint_type == "check"
        ]
        left_over = [DropConstraintOp.from_constraint(check.to_constraint()) for check in checks]
        for column in columns:
            column.if_not_exists = True
        for drop in [*drops, *left_over]:
            drop.if_exists = True
        for check in checks:
            check.kw["postgresql_not_valid"] = True
        table.ops = [part for part in table.ops if part not in [*columns, *drops, *checks]]
        validations = [validate(check.to_constraint(), preparer) for check in checks]
        steps = [*columns, *drops, *left_over, *checks, *validations]
        first.append(ModifyTableOps(table.table_name, steps, schema=table.schema))
    operations.ops = [*first, *operations.ops]


class AutocommitOp(ExecuteSQLOp):
    """A statement outside the revision's transaction."""


def validate(check: CheckConstraint, preparer: IdentifierPreparer) -> AutocommitOp:
    table, name = preparer.format_table(check.table), preparer.format_constraint(check)
    return AutocommitOp(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}")


@renderers.dispatch_for(AutocommitOp)
def render_autocommit(context: AutogenContext, operation: AutocommitOp) -> list[str]:
    return [
        "with op.get_context().autocommit_block():",
        f"op.execute({operation.sqltext!r})",
        "",  # ends the block
    ]


def find_drops(operation: object) -> Iterator[str]:
    """Yield the tables and columns that an operation removes, with their data."""
    if isinstance(operation, DropTableOp):
        yield f"the table {operation.table_name}"
    elif isinstance(operation, DropColumnOp):
        yield f"the column {operation.table_name}.{operation.column_name}"
    for part in getattr(operation, "ops", []):
        yield from find_drops(part)
