"""Settings: .env.example has all of them and loads, and a wrong value is one line."""

import re
from io import StringIO

import pytest
from dotenv import dotenv_values

from app.config import Settings
from app.database import ROOT, ConfigurationError
from app.database.settings import MigrationSettings

CLASSES = (Settings, MigrationSettings)
NAMES = {name.upper() for cls in CLASSES for name in cls.model_fields}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The variables of .env.example, those in comments included, in the environment."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    values = dotenv_values(stream=StringIO(re.sub(r"(?m)^#(?=[A-Z_]+=)", "", text)))
    for name, value in values.items():
        monkeypatch.setenv(name, value or "")
    return set(values)


def test_env_example_has_every_setting(example: set[str]) -> None:
    assert NAMES - example == set(), "add them to .env.example"


@pytest.mark.usefixtures("example")
def test_env_example_loads() -> None:
    for cls in CLASSES:
        settings = cls()
        assert settings.database_url.drivername == "postgresql+asyncpg"
        assert settings.database_url_sync.drivername == "postgresql+psycopg"


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", "mysql://app:hunter2@localhost/app"),
        ("DATABASE_POOL_SIZE", "many"),
        ("MIGRATION_WAIT_SECONDS", "1 minute"),
        ("CORS_ORIGINS", "www.example.com"),
    ],
)
def test_wrong_setting_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    cls = MigrationSettings if name.startswith("MIGRATION") else Settings
    with pytest.raises(ConfigurationError, match=rf"^{name}\b[^\n]*$") as error:
        cls()
    assert "hunter2" not in str(error.value)
