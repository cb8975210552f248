"""Settings: .env.example has all of them and loads, and a wrong value is one line."""

import re
from io import StringIO

import pytest
from dotenv import dotenv_values

from app.config import Settings
from app.database import ROOT, ConfigurationError
from app.database.settings import DatabaseSettings, MigrationSettings

CLASSES = (Settings, MigrationSettings)
OWN = Settings.model_fields.keys() - DatabaseSettings.model_fields.keys()
# Files, and the settings that they name. The containers of compose.yaml set some themselves.
FILES = {".env.example": {*Settings.model_fields, *MigrationSettings.model_fields}}
if (ROOT / "compose.yaml").exists():
    FILES["compose.yaml"] = {*OWN}


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of .env.example, those in comments included, in the environment."""
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    values = dotenv_values(stream=StringIO(re.sub(r"(?m)^#(?=[A-Z0-9_]+=)", "", text)))
    for name, value in values.items():
        monkeypatch.setenv(name, value or "")


@pytest.mark.parametrize("file", FILES)
def test_file_names_every_setting(file: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    named = set(re.findall(r"^(?:#| +)?(\w+)[=:]", text, re.MULTILINE))
    assert {name.upper() for name in FILES[file]} - named == set(), f"add them to {file}"


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
