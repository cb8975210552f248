"""The revision of the schema, compared with this code's."""

from functools import cache
from typing import Any, Literal

from .settings import ROOT


@cache
def script_directory() -> Any:
    """Return the revisions in `alembic/versions`, read once."""
    from alembic.config import Config  # here, since it takes a tenth of a worker's start
    from alembic.script import ScriptDirectory

    return ScriptDirectory.from_config(Config(ROOT / "alembic.ini"))


def schema_state(applied: set[str]) -> Literal["current", "behind", "newer"]:
    """Compare the revisions in the table `alembic_version` with this code's heads."""
    scripts = script_directory()
    if not applied <= {script.revision for script in scripts.walk_revisions()}:
        return "newer"  # newer code has migrated the database
    return "current" if applied == set(scripts.get_heads()) else "behind"
