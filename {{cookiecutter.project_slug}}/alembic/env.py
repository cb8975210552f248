"""Run by every `alembic` command: which tables, which database, which options."""

from logging.config import fileConfig

from alembic import context

from app.autogenerate import autogenerate_options
from app.database import Base
from app.migrations import connect, one_at_a_time
from app.models import *  # noqa: F403 - registers every table on Base.metadata

config = context.config
target_metadata = Base.metadata

# Only the command line configures logging; a program that calls Alembic has its own.
if config.cmd_opts and config.config_file_name:
    fileConfig(config.config_file_name, disable_existing_loggers=False)


def run_migrations_offline() -> None:
    """Print SQL; needs no database."""
    context.configure(
        dialect_name="postgresql",
        target_metadata=target_metadata,
        literal_binds=True,
        transaction_per_migration=True,
    )
    with context.begin_transaction():
        context.run_migrations()


def run_migrations_online() -> None:
    """Migrate through DATABASE_URL_SYNC, or the connection that the caller handed in."""
    with connect(config) as connection:
        # Run no SQL before configure(): it would open a transaction, which Alembic would
        # take for somebody else's and not commit after each revision.
        context.configure(
            connection=connection,
            target_metadata=target_metadata,
            transaction_per_migration=True,
            **autogenerate_options(connection, target_metadata),
        )
        with one_at_a_time(config, context.get_context()), context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    run_migrations_offline()
else:
    run_migrations_online()
