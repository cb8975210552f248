"""Settings: where they are read, how an error reads, and where migrations find their URL."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import pytest
from alembic.config import Config
from pydantic import model_validator
from sqlalchemy import URL

from app.config import Settings, get_settings
from app.database import ConfigurationError, DatabaseSettings
from app.database.migrations import create_migration_engine, migration_settings
from app.database.settings import MigrationSettings
from app.database.urls import render

ASYNC = "postgresql+asyncpg://app@db/app"
SYNC = "postgresql+psycopg://app@db/app"


@pytest.fixture(autouse=True)
def env_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the project's .env is. There is none yet, and no variable is set."""
    path = tmp_path / ".env"
    for cls in (DatabaseSettings, MigrationSettings, Settings):
        monkeypatch.setitem(cls.model_config, "env_file", path)
        for name in cls.model_fields:
            monkeypatch.delenv(name.upper(), raising=False)
    return path


def refused(cls: type[DatabaseSettings] = Settings) -> str:
    with pytest.raises(ConfigurationError) as error:
        cls()
    return str(error.value)


def test_urls_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    monkeypatch.setenv("DATABASE_URL_SYNC", SYNC)
    settings = Settings()
    assert (str(settings.database_url), str(settings.database_url_sync)) == (ASYNC, SYNC)


@pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_URL_SYNC"])
def test_one_url_is_enough(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "postgresql://app@db/app")
    for settings in (Settings(), MigrationSettings()):
        assert (str(settings.database_url), str(settings.database_url_sync)) == (ASYNC, SYNC)


@pytest.mark.parametrize("cls", [Settings, MigrationSettings])
def test_no_url_is_one_line(cls: type[DatabaseSettings]) -> None:
    line = refused(cls)
    assert line.startswith("neither DATABASE_URL nor DATABASE_URL_SYNC is set")
    assert "\n" not in line


def test_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("DATABASE_URL_SYNC", SYNC)
    monkeypatch.setenv("DATABASE_POOLER", "")
    settings = Settings()
    assert (str(settings.database_url), settings.database_pooler) == (ASYNC, "none")


def test_env_file_may_hold_more_and_the_environment_wins(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text(f"DATABASE_URL={ASYNC}\nMAX_BODY_SIZE=5\nSOMEBODY_ELSES=1\n# ü\n", "utf-8")
    monkeypatch.setenv("MAX_BODY_SIZE", "6")
    settings = Settings()
    assert (str(settings.database_url), settings.max_body_size) == (ASYNC, 6)


@pytest.mark.parametrize("cls", [Settings, MigrationSettings])
def test_env_file_that_is_not_utf_8_is_one_line(
    env_file: Path, cls: type[DatabaseSettings]
) -> None:
    env_file.write_bytes(b"DATABASE_URL=postgresql://app:\xfc@db/app\n")
    assert refused(cls).endswith(".env cannot be read: it must be UTF-8 and readable by this user")


@contextmanager
def without_privileges() -> Iterator[None]:
    """Run the block as another user than root, who may read every file."""
    uid = os.geteuid()
    os.seteuid(uid or 54321)
    try:
        yield
    finally:
        os.seteuid(uid)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("cls", [Settings, MigrationSettings])
def test_env_file_that_cannot_be_read_is_one_line(
    monkeypatch: pytest.MonkeyPatch, cls: type[DatabaseSettings]
) -> None:
    with TemporaryDirectory() as directory:  # `tmp_path` is closed to other users
        Path(directory).chmod(0o755)
        path = Path(directory, ".env")
        path.touch(mode=0o000)
        monkeypatch.setitem(cls.model_config, "env_file", path)
        with without_privileges():
            line = refused(cls)
    assert line.endswith(".env cannot be read: it must be UTF-8 and readable by this user")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_POOLER", "odyssey"),
        ("DATABASE_POOL_SIZE", "0"),
        ("DATABASE_STATEMENT_TIMEOUT_SECONDS", "5s"),
        ("DATABASE_STATEMENT_TIMEOUT_SECONDS", "-1"),
        ("DATABASE_IDLE_IN_TRANSACTION_TIMEOUT_SECONDS", "nan"),
        ("DATABASE_IDLE_IN_TRANSACTION_TIMEOUT_SECONDS", "2147484"),
        ("MIGRATION_WAIT_SECONDS", "soon"),
        ("MIGRATION_LOCK_TIMEOUT_SECONDS", "500ms"),
        ("MIGRATION_LOCK_TIMEOUT_SECONDS", "5 -c role=postgres"),
        ("MIGRATION_STATEMENT_TIMEOUT_SECONDS", "inf"),
        ("MAX_BODY_SIZE", "1 MB"),
        ("MAX_BODY_SIZE", "0"),
        ("SHUTDOWN_DELAY_SECONDS", "-1"),
    ],
)
def test_wrong_value_is_one_line_that_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("DATABASE_URL_SYNC", SYNC)
    monkeypatch.setenv(name, value)
    line = refused(MigrationSettings if name.startswith("MIGRATION_") else Settings)
    assert line.startswith(f"{name}: Input should be ")
    assert "\n" not in line


def test_two_wrong_values_are_two_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    monkeypatch.setenv("MAX_BODY_SIZE", "much")
    monkeypatch.setenv("CORS_ORIGINS", "www.example.com")
    lines = refused().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["CORS_ORIGINS", "MAX_BODY_SIZE"]
    assert "Value error" not in lines[0]


def test_rule_for_several_settings_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such a rule belongs to no variable, and its input is the URL."""

    class Own(Settings):
        @model_validator(mode="after")
        def refuse(self) -> Self:
            raise ValueError("the pool is too large for the timeout")

    monkeypatch.setenv("DATABASE_URL", "postgresql://app:hunter2@db/app")
    assert refused(Own) == "the pool is too large for the timeout"
    with pytest.raises(ConfigurationError) as error:
        Own()
    assert "hunter2" not in repr(error.value.__context__)


@pytest.mark.parametrize("value", ["0", "0.0005", "2073600"])
def test_times_are_seconds_with_fractions(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    for name in [name for name in MigrationSettings.model_fields if name.endswith("_seconds")]:
        monkeypatch.setenv(name.upper(), value)
        assert getattr(MigrationSettings(), name) == float(value)


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    values = Settings().model_dump() | MigrationSettings().model_dump()
    for url in ("database_url", "database_url_sync"):
        values.pop(url)
    assert values == {
        "database_pooler": "none",
        "database_pool_size": 15,
        "database_statement_timeout_seconds": 30,
        "database_lock_timeout_seconds": 5,
        "database_idle_in_transaction_timeout_seconds": 60,
        "migration_wait_seconds": 60,
        "migration_lock_timeout_seconds": 5,
        "migration_statement_timeout_seconds": 0,
        "allowed_hosts": ["*"],
        "cors_origins": [],
        "api_docs": True,
        "max_body_size": 1_000_000,
        "shutdown_delay_seconds": 5,
    }


def test_lists_are_separated_by_commas_and_lower_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    monkeypatch.setenv("ALLOWED_HOSTS", "API.example.com, *.example.org,")
    monkeypatch.setenv("CORS_ORIGINS", "https://WWW.example.com,http://localhost:3000")
    settings = Settings()
    assert settings.allowed_hosts == ["api.example.com", "*.example.org"]
    assert settings.cors_origins == ["https://www.example.com", "http://localhost:3000"]


@pytest.mark.parametrize("name", ["ALLOWED_HOSTS", "CORS_ORIGINS"])
def test_star_stands_for_everything(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    monkeypatch.setenv(name, "*")
    assert getattr(Settings(), name.lower()) == ["*"]


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("ALLOWED_HOSTS", "https://api.example.com", "api.example.com"),
        ("ALLOWED_HOSTS", "api.example.com:8000", "api.example.com"),
        ("ALLOWED_HOSTS", "api.*.com", "*.example.com"),
        ("CORS_ORIGINS", "https://www.example.com/", "https://www.example.com"),
        ("CORS_ORIGINS", "https://a.example.com www.example.com", "https://www.example.com"),
    ],
)
def test_name_that_would_never_match_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, right: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    monkeypatch.setenv(name, value)
    line = refused()
    assert line.startswith(f"{name}: '{value.split()[-1]}' should look like ")
    assert right in line


def test_dump_shows_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    url = ASYNC.replace("@", ":hunter2@") + "?sslpassword=hunter2"
    monkeypatch.setenv("DATABASE_URL", url)
    settings = Settings()
    assert settings.database_url.password == "hunter2"  # noqa: S105 - it is there
    dumps = settings.model_dump(), settings.model_dump(mode="json"), settings.model_dump_json()
    assert "hunter2" not in repr(settings)
    for dump in map(str, dumps):
        assert "hunter2" not in dump
        assert "asyncpg" in dump


def test_repr_shows_no_password() -> None:
    settings = Settings(database_url="postgresql://app:hunter2@db/app")
    assert "hunter2" not in f"{settings!r} {settings}"


def test_settings_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    get_settings.cache_clear()
    assert get_settings() is get_settings()
    get_settings.cache_clear()


def test_wrong_settings_end_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    get_settings.cache_clear()
    with pytest.raises(SystemExit) as error:
        get_settings()
    assert error.value.code == 3  # uvicorn's supervisor starts no other worker then
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), err.partition(" ")[0]) == ("", 1, "neither")


def test_migration_url_is_the_first_that_is_set(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config()
    monkeypatch.setenv("DATABASE_URL", "postgresql://app@derived/app")
    assert host(config) == "derived"
    config.set_main_option("sqlalchemy.url", "postgresql://app@ini/app")
    assert host(config) == "ini"
    env_file.write_text("DATABASE_URL_SYNC=postgresql://app@file/app\n")
    assert host(config) == "file"
    monkeypatch.setenv("DATABASE_URL_SYNC", "postgresql://app@environment/app")
    assert host(config) == "environment"


def host(config: Config) -> str | None:
    engine = create_migration_engine(config)
    assert engine.url.drivername == "postgresql+psycopg"
    return engine.url.host


@pytest.mark.parametrize("password", ["%", "@/:#?&+ ", "p%(here)s", "пароль🔑"])
def test_migration_url_keeps_any_password(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    url = URL.create("postgresql", "app", password, "db", database="app")
    monkeypatch.setenv("DATABASE_URL_SYNC", render(url))
    assert migration_settings(Config()).database_url_sync.password == password


def test_migrations_refuse_two_databases(env_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    env_file.write_text("DATABASE_URL=postgresql://db/app\n")
    config = Config()
    config.set_main_option("sqlalchemy.url", "postgresql://db/ini")
    with pytest.raises(ConfigurationError, match=r"'app' and sqlalchemy.url of alembic.ini 'ini'"):
        migration_settings(config)
    env_file.write_text("DATABASE_URL=postgresql://db/app\nDATABASE_URL_SYNC=postgresql://db/b\n")
    with pytest.raises(ConfigurationError, match=r"'app' and DATABASE_URL_SYNC 'b'"):
        migration_settings(config)
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/app")
    monkeypatch.setenv("DATABASE_URL_SYNC", "postgresql://db/other")
    with pytest.raises(ConfigurationError, match=r"'app' and DATABASE_URL_SYNC 'other'"):
        migration_settings(config)


def test_url_for_one_command_may_name_another_database_than_env_file(
    env_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env_file.write_text(
        "DATABASE_URL=postgresql://db/app\nDATABASE_URL_SYNC=postgresql://db/app\n"
    )
    monkeypatch.setenv("DATABASE_URL_SYNC", "postgresql://db/other")
    assert migration_settings(Config()).database_url_sync.database == "other"


def test_wrong_url_of_the_ini_file_is_named_and_keeps_its_password() -> None:
    config = Config()
    config.set_main_option("sqlalchemy.url", "mysql://app:hunter2@db/app")
    with pytest.raises(ConfigurationError, match=r"^sqlalchemy.url of alembic.ini has") as error:
        migration_settings(config)
    assert "hunter2" not in str(error.value)


def test_migrations_behind_a_pooler_need_their_own_url(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    monkeypatch.setenv("DATABASE_POOLER", "pgbouncer")
    assert refused(MigrationSettings).startswith(
        "DATABASE_URL_SYNC is not set; with DATABASE_POOL"
    )
    config = Config()
    config.set_main_option("sqlalchemy.url", SYNC)
    assert str(migration_settings(config).database_url_sync) == SYNC
