"""The options of autogenerate: the objects it compares, and the form of a revision."""

import ast
import inspect
import logging
import re
from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from functools import cache
from typing import Any, Literal

from alembic.autogenerate.api import AutogenContext
from alembic.autogenerate.render import _repr_type
from alembic.ddl.postgresql import PostgresqlImpl
from alembic.operations import ops
from alembic.runtime.migration import MigrationContext
from alembic.runtime.plugins import Plugin
from alembic.util import PriorityDispatchResult
from sqlalchemy import Connection, DefaultClause, Enum, MetaData, String, literal, text
from sqlalchemy.dialects.postgresql import ENUM
from sqlalchemy.schema import CheckConstraint
from sqlalchemy.types import TypeDecorator
from sqlalchemy.util import generic_repr

from .objects import AutocommitOp, add_objects

logger = logging.getLogger(__name__)

CHECKS_BY_NAME = "alembic.ext.checkconstraint_byname"  # `Base` names all of them
# Without the name of the default schema, as in `metadata.tables`.
OWN_TABLES = text("""
    SELECT concat_ws('.', nullif(nspname, current_schema()), relname)
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE relkind IN ('r', 'p') AND NOT relispartition AND NOT EXISTS (
        SELECT FROM pg_depend
        WHERE classid = 'pg_class'::regclass AND objid = pg_class.oid AND deptype = 'e')
""")


def autogenerate_options(
    connection: Connection, metadata: MetaData, ignored: Collection[str] = ()
) -> dict[str, Any]:
    """Return options of `context.configure`. Tables that match `ignored` are left alone."""
    schemas = {None, *(table.schema for table in metadata.tables.values())}

    @cache
    def own_tables() -> set[str]:
        # Asked on first use: a query before configure() would begin a transaction.
        return set(connection.scalars(OWN_TABLES))

    def is_ignored(name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in ignored)

    def include_name(name: Any, kind: str, parents: Mapping[str, Any]) -> bool:
        """Leave out tables without a model, and CHECKs whose name is PostgreSQL's."""
        table = parents.get("schema_qualified_table_name", "")
        if kind == "table":
            return table in own_tables() and not is_ignored(name)
        if kind == "check_constraint":
            rules = metadata.tables[table].constraints
            names = {rule.name for rule in rules if isinstance(rule, CheckConstraint)}
            return name in names or all(isinstance(rule, str) for rule in names)
        return kind != "schema" or name in schemas

    return {
        "autogenerate_plugins": ["alembic.autogenerate.*", CHECKS_BY_NAME, __name__],
        "compare_type": compare_type,
        "compare_server_default": True,
        "include_name": include_name,
        "include_object": lambda item, name, kind, *_: kind != "table" or not is_ignored(name),
        "include_schemas": len(schemas) > 1,
        "process_revision_directives": review,
        "render_item": render_type,
    }


class PostgreSQL(PostgresqlImpl):
    """Write `%` into a revision as it is: Alembic's own class doubles it, for psycopg."""

    __dialect__ = "postgresql"  # makes Alembic use this class

    def render_ddl_sql_expr(self, *expression: Any, **options: Any) -> str:
        return super().render_ddl_sql_expr(*expression, **options).replace("%%", "%")


def compare_type(context: MigrationContext, *columns_and_types: object) -> bool | None:
    """Compare the length of an enum that is stored as a string; None: Alembic compares."""
    old, new = columns_and_types[-2:]
    if isinstance(new, Enum) and not new.native_enum and isinstance(old, String):
        return old.length != new.length
    return None


def compare_default(
    context: AutogenContext, operation: ops.AlterColumnOp, *names: Any
) -> PriorityDispatchResult:
    """Compare defaults as text first: Alembic evaluates them, which uses up a sequence."""
    found, wanted = (default_text(column.server_default, context) for column in names[-2:])
    if not found or not wanted or (found != wanted and "nextval(" not in found + wanted):
        return PriorityDispatchResult.CONTINUE
    if found != wanted:
        operation.modify_server_default = names[-1].server_default
    return PriorityDispatchResult.STOP


def default_text(default: object, context: AutogenContext) -> str:
    """Return a default without the casts that the database adds, or "" for an Identity."""
    if not isinstance(default, DefaultClause):
        return ""
    element = literal(default.arg, String()) if isinstance(default.arg, str) else default.arg
    shown = context.migration_context.impl.render_ddl_sql_expr(element)
    string = r"^('(?:[^']|'')*')::\w+(?: varying| precision| \w+ time zone)?$"
    return re.sub(string, r"\1", shown).replace("::regclass", "")


Plugin(__name__).add_autogenerate_comparator(compare_default, "column", "server_default")


def render_type(kind: str, item: object, context: AutogenContext) -> str | Literal[False]:
    """Render enums as text and import custom types. False leaves the item to Alembic."""
    if isinstance(item, Enum) and item.native_enum:
        # Its type is an operation of its own. `sa.Enum` would create it with each table.
        context.imports.add("from sqlalchemy.dialects import postgresql")
        new = ENUM(*item.enums, name=item.name, schema=item.schema, create_type=False)
        return f"postgresql.{new!r}"
    if isinstance(item, Enum) and item.create_constraint and item.name:
        # Its CHECK is an operation of its own. `sa.Enum` would add it without NOT VALID.
        return f"sa.String({item.length})" if item.length else "sa.Text()"
    cls = type(item)
    if kind != "type" or cls.__module__.startswith("sqlalchemy."):
        return False
    call = repr(item)
    if cls.__repr__ is TypeDecorator.__repr__ and cls.__init__ is not TypeDecorator.__init__:
        call = generic_repr(item)  # with its own arguments, not those of `impl`
    if not is_safe(cls, call):
        if isinstance(item, TypeDecorator):
            return _repr_type(item.impl_instance, context)  # Alembic has no public function
        call = f"{cls.__name__}()"
    context.imports.add(f"import {cls.__module__}")
    return f"{cls.__module__}.{call}"


def is_safe(cls: type, rendered: str) -> bool:
    """Tell whether a revision may hold this call: its arguments are literals, and no secrets."""
    try:
        call: Any = ast.parse(rendered, mode="eval").body
        for value in [*call.args, *(keyword.value for keyword in call.keywords)]:
            ast.literal_eval(value)
    except (AttributeError, SyntaxError, ValueError):
        return False
    names = [*inspect.signature(cls).parameters, *(str(keyword.arg) for keyword in call.keywords)]
    return not re.search("key|secret|password|token", " ".join(names), re.IGNORECASE)


def review(migration: MigrationContext, revision: object, directives: list[Any]) -> None:
    """Write no empty revision, and add CHECKs without blocking writers."""
    script = directives[0]
    up, down = script.upgrade_ops, script.downgrade_ops
    for operations in (up, down):
        write_out_checks(operations, migration)
        add_checks_online(operations, migration)
    add_objects(up, down, migration)
    if up.is_empty():
        # `alembic check` needs the empty script; `alembic revision` has a message or option.
        command_line = migration.config.cmd_opts if migration.config else None
        if getattr(command_line, "autogenerate", script.message is not None):
            logger.warning("Models and database agree: no revision was written")
            directives.clear()


def write_out_checks(operations: ops.OpContainer, migration: MigrationContext) -> None:
    """Give new tables the CHECK constraints of enums and columns, which Alembic omits."""
    for table in operations.ops:
        if isinstance(table, ops.CreateTableOp):
            of_columns = [c for item in table.columns for c in getattr(item, "constraints", ())]
            table.columns = [
                # Text, since a new constraint with an expression would add itself to the model.
                CheckConstraint(migration.impl.render_ddl_sql_expr(item.sqltext), name=item.name)
                if isinstance(item, CheckConstraint) and isinstance(item.name, str)
                else item
                for item in [*table.columns, *of_columns]
            ]


def add_checks_online(operations: ops.OpContainer, migration: MigrationContext) -> None:
    """Add CHECKs to an existing table as NOT VALID, and validate them while others write.

    The validation commits what precedes it. So these operations come first and can be
    repeated: an interrupted revision runs again from its beginning.
    """
    preparer, first = migration.dialect.identifier_preparer, []
    for table in [part for part in operations.ops if isinstance(part, ops.ModifyTableOps)]:
        parts: list[Any] = table.ops
        columns = [part for part in parts if isinstance(part, ops.AddColumnOp)]
        checks = [part for part in parts if isinstance(part, ops.CreateCheckConstraintOp)]
        drops = [part for part in parts if isinstance(part, ops.DropConstraintOp)]
        drops = [drop for drop in drops if drop.constraint_type == "check"]
        if not checks:
            continue
        table.ops = [part for part in parts if part not in [*columns, *drops, *checks]]
        drops += [check.reverse() for check in checks]  # what an interruption left
        for column in columns:
            column.if_not_exists = True
        for drop in drops:
            drop.if_exists = True
        validations = []
        for check in checks:
            check.kw["postgresql_not_valid"] = True
            new = check.to_constraint()
            name, of = preparer.format_constraint(new), preparer.format_table(new.table)
            validations.append(AutocommitOp(f"ALTER TABLE {of} VALIDATE CONSTRAINT {name}"))
        steps = [*columns, *drops, *checks, *validations]
        first.append(ops.ModifyTableOps(table.table_name, steps, schema=table.schema))
    operations.ops = [*first, *operations.ops]
