"""PostgreSQL: models, settings, engine, sessions, migrations. Knows no FastAPI.

The package imports nothing else of the application, so another project can copy it.
"""

from .base import Base
from .engine import DatabaseUnavailable, create_engine
from .sessions import Database, ReadOnlyViolation
from .settings import ROOT, DatabaseSettings
from .urls import ConfigurationError

__all__ = [
    "ROOT",
    "Base",
    "ConfigurationError",
    "Database",
    "DatabaseSettings",
    "DatabaseUnavailable",
    "ReadOnlyViolation",
    "create_engine",
]
