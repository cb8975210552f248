"""PostgreSQL: models, settings, sessions, migrations. Another project can copy this package."""

from .base import Base
from .engine import DatabaseUnavailable, create_engine, limit_statements
from .sessions import Database, Reader, ReadOnlyViolation
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
    "Reader",
    "create_engine",
    "limit_statements",
]
