"""The application."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]  # where pyproject.toml, alembic.ini and .env are
