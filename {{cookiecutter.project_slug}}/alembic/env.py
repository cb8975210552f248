"""Alembic runs this file: it sets the tables, the connection and the options."""

import gc
from logging.config import fileConfig

from alembic import context

from app.database import Base
from app.database.autogenerate import autogenerate_options
from app.database.migrations import connect, migration_lock
from app.models import *  # noqa: F403 - registers every table on Base.metadata

config = context.config
target_metadata = Base.metadata
# Tables that a library creates, by name or pattern: autogenerate leaves them alone.
IGNORED_TABLES: list[str] = []  # ["procrastinate_*", "celery_taskmeta"]

# Only the command line configures logging. A program that calls Alembic has its own.
if config.cmd_opts and config.config_file_name:
    fileConfig(config.config_file_name, disable_existing_loggers=False)
    gc.freeze()  # else Python collects all modules at its end: a quarter of `upgrade`'s time


def run_migrations_offline() -> None:
    """Print SQL. Needs no database."""
    context.configure(
        dialect_name="postgresql",
        dialect_opts={"paramstyle": "named"},  # does not double `%`
        target_metadata=target_metadata,
        literal_binds=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_migrations_online() -> None:
    """Migrate on the caller's connection, or else on a new one (see MigrationSettings)."""
    with connect(config) as connection:
        # Run no SQL before configure(): it would begin a transaction, which Alembic would
        # take for the caller's and never commit.
        context.configure(
            connection=connection,
            target_metadata=target_metadata,
            transaction_per_migration=True,
            **autogenerate_options(connection, target_metadata, IGNORED_TABLES),
        )
        with migration_lock(config, context.get_context()), context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    run_migrations_offline()
else:
    run_migrations_online()
