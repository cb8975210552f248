"""What `alembic revision --autogenerate` and `alembic check` compare, and what they write."""

import logging
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal

from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import (
    CreateTableOp,
    DropColumnOp,
    DropTableOp,
    MigrateOperation,
    MigrationScript,
    ModifyTableOps,
    OpContainer,
    UpgradeOps,
)
from alembic.runtime.migration import MigrationContext
from sqlalchemy import (
    CheckConstraint,
    Column,
    Connection,
    Constraint,
    Enum,
    MetaData,
    String,
    Table,
    text,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import SchemaItem
from sqlalchemy.types import TypeDecorator
from sqlalchemy.util import generic_repr

from .enums import is_of_enum  # relative, as in migrations.py

logger = logging.getLogger(__name__)

NOT_OURS = text("""
    SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_table_is_visible(pg_class.oid) AND (
        relispartition OR nspname <> current_schema() OR EXISTS (
            SELECT FROM pg_depend
            WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e'
        )
    )
""")


def autogenerate_options(connection: Connection, metadata: MetaData) -> dict[str, Any]:
    """The arguments of `context.configure` that decide what autogenerate sees."""

    @cache
    def not_ours() -> set[str | None]:
        # Asked when first needed: a query before configure() would open a transaction.
        return set(connection.scalars(NOT_OURS))

    def include_name(name: str | None, kind: str, parents: Mapping[str, str | None]) -> bool:
        """Leave alone the tables of extensions and other schemas, and partitions."""
        return kind != "table" or name not in not_ours()

    def include_object(
        item: SchemaItem, name: str | None, kind: str, reflected: bool, other: object
    ) -> bool:
        """Leave the CHECK constraints of enums to `compare_enums`.

        In another project a CHECK may have no name but the one that PostgreSQL gave it: where
        a table's model has such, what is in the database alone may well be it.
        """
        if reflected and other is None and isinstance(item, CheckConstraint):
            return all(has_name(check) for check in metadata.tables[item.table.key].constraints)
        return reflected or not is_of_enum(item)

    return {
        # The second one compares the names of CHECK constraints, which `Base` has all named.
        "autogenerate_plugins": ["alembic.autogenerate.*", "alembic.ext.checkconstraint_byname"],
        "compare_type": compare_type,
        "compare_server_default": True,
        "include_name": include_name,
        "include_object": include_object,
        "process_revision_directives": review,
        "render_item": import_custom_type,
    }


def compare_type(
    context: MigrationContext, found: object, wanted: object, old: object, new: object
) -> bool | None:
    """An enum is a string to the database; None leaves all else to Alembic."""
    if isinstance(new, Enum) and not new.native_enum and isinstance(old, String):
        return old.length != new.length
    return None


def has_name(item: Constraint) -> bool:
    """Whether this is no CHECK, or one whose model says its name."""
    return not isinstance(item, CheckConstraint) or isinstance(item.name, str)


@comparators.dispatch_for("table")
def compare_enums(
    context: AutogenContext,
    changes: ModifyTableOps,
    schema: str | None,
    name: str,
    found: Table | None,
    wanted: Table | None,
) -> None:
    """Find the enums that have other values now.

    Alembic compares the names of CHECK constraints alone.
    """
    checks = [*filter(is_of_enum, wanted.constraints)] if wanted is not None else []
    if found is None or context.inspector is None or not checks:
        return
    reflected = context.inspector.get_check_constraints(name, schema=schema)
    texts = {check["name"]: check["sqltext"] for check in reflected}
    preparer = context.migration_context.dialect.identifier_preparer
    for check in checks:
        if not has_name(check):
            continue
        # As PostgreSQL has it, which is shortened where it is longer than 63 characters.
        label = str(preparer.format_constraint(check)).strip('"')
        old, new = texts.get(label, ""), as_sql(check)
        comes_with_column = set(check.columns.keys()) - set(found.columns.keys())
        if quoted(old) != quoted(new) and not comes_with_column:
            changes.ops.append(RenewCheck(name, label, old, new))


class RenewCheck(MigrateOperation):
    """A CHECK constraint in place of the one that has its name, if there is one."""

    def __init__(self, table: str, name: str, old: str, new: str) -> None:
        self.table, self.name, self.old, self.new = table, name, old, new

    def reverse(self) -> MigrateOperation:
        return RenewCheck(self.table, self.name, self.new, self.old)

    def to_diff_tuple(self) -> tuple[Any, ...]:
        return ("renew_check", self.table, self.name, self.new)


@renderers.dispatch_for(RenewCheck)
def render_renewal(context: AutogenContext, check: RenewCheck) -> list[str]:
    """As the recipe of README.md does it: VALIDATE reads the table while others write."""
    names = f"op.f({check.name!r}), {check.table!r}"
    lines = [f"op.drop_constraint({names}, type_='check', if_exists=True)"]
    if check.new:
        # Not the name of a parameter, as :word would be in a text.
        condition = re.sub(r"(?<![:\w]):(?=\w)", r"\\:", check.new)
        quote = context.migration_context.dialect.identifier_preparer.quote
        validate = f"ALTER TABLE {quote(check.table)} VALIDATE CONSTRAINT {quote(check.name)}"
        lines += [
            f"op.create_check_constraint({names}, {condition!r}, postgresql_not_valid=True)",
            "with op.get_context().autocommit_block():",
            f"op.execute({validate!r})",
            "",  # ends the block
        ]
    return lines


def as_sql(check: CheckConstraint) -> str:
    options = {"literal_binds": True, "include_table": False}
    # psycopg's own would double each %.
    dialect = postgresql.dialect(paramstyle="named")  # type: ignore[no-untyped-call]
    return str(check.sqltext.compile(dialect=dialect, compile_kwargs=options))


def quoted(sql: str) -> set[str]:
    """The strings that a text of SQL holds."""
    return set(re.findall(r"'((?:[^']|'')*)'", sql))


def import_custom_type(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """Import the module of a type that is not SQLAlchemy's; render it as usual, if that works."""
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
    """Write no revision that changes nothing; warn of one that drops something."""
    for script in directives:
        if script.upgrade_ops is None or script.upgrade_ops.is_empty():
            # `alembic check` reads what is empty.
            command_line = migration.config.cmd_opts if migration.config else None
            if getattr(command_line, "autogenerate", script.message is not None):
                logger.warning("Models and database agree: no revision was written")
                directives.clear()
            return
        keep_checks_of_columns(script.upgrade_ops)
        for operations in (script.upgrade_ops, script.downgrade_ops):
            put_renewals_first(operations)
        drops = [f"DROPS {what}" for what in find_drops(script.upgrade_ops)]
        for drop in drops:
            logger.warning("The new revision %s: is that meant?", drop)
        migration.opts["template_args"]["drops"] = drops


def keep_checks_of_columns(operations: UpgradeOps) -> None:
    """Give new tables the CHECK constraints of their columns, which Alembic would leave out."""
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


def put_renewals_first(operations: OpContainer | None) -> None:
    """Commit in the middle before all else, so that a revision can be run again from there."""
    if operations is None:
        return
    tables = [table for table in operations.ops if isinstance(table, ModifyTableOps)]
    renewals = []
    for table in tables:
        found = [change for change in table.ops if isinstance(change, RenewCheck)]
        table.ops = [change for change in table.ops if not isinstance(change, RenewCheck)]
        renewals += [ModifyTableOps(table.table_name, found, schema=table.schema)] * bool(found)
    operations.ops = [*renewals, *operations.ops]


def find_drops(operation: object) -> Iterator[str]:
    """The tables and columns that an operation, or one inside it, removes with their data."""
    if isinstance(operation, DropTableOp):
        yield f"the table {operation.table_name}"
    elif isinstance(operation, DropColumnOp):
        yield f"the column {operation.table_name}.{operation.column_name}"
    for part in getattr(operation, "ops", []):
        yield from find_drops(part)
