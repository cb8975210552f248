"""Fixtures that only the tests of the machinery need. The project's own are there too."""

import shutil
from pathlib import Path

import pytest
from alembic.config import Config
from sqlalchemy import Connection

from app.database import ROOT


@pytest.fixture
def scratch(tmp_path: Path, transaction: Connection) -> Config:
    """The project's Alembic in `transaction`, with a copy of the revisions to add to."""
    config = Config(ROOT / "alembic.ini")
    config.attributes["connection"] = transaction
    shutil.copytree(ROOT / "alembic", tmp_path / "alembic")
    config.set_main_option("script_location", str(tmp_path / "alembic"))
    config.set_section_option("post_write_hooks", "hooks", "")
    return config
