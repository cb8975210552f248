"""PostgreSQL: models, settings, engine, sessions, migrations. Knows no FastAPI.

The package imports nothing else of the application, so another project can copy it.
"""

from .base import Base
from .engine import DatabaseUnavailable, create_engine, limit_statements
from .sessions import Database, NotLoaded, Reader, ReadOnlyViolation
from .settings import ROOT, DatabaseSettings
from .urls import ConfigurationError

__all__ = [
    "ROOT",
    "Base",
    "ConfigurationError",
    "Database",
    "DatabaseSettings",
    "DatabaseUnavailable",
    "NotLoaded",
    "ReadOnlyViolation",
    "Reader",
    "create_engine",
    "limit_statements",
]
