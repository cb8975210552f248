"""Settings, and where migrations find their URL."""

import runpy
from pathlib import Path

import pytest
from alembic.config import Config
from dotenv import dotenv_values
from sqlalchemy import URL, create_engine, make_url
from sqlalchemy.ext.asyncio import create_async_engine

import app
from app import ROOT, migrations
from app.config import Settings, get_settings
from app.migrations import migration_url
from app.urls import EXAMPLE_PASSWORD, ConfigurationError, parse

ASYNC = "postgresql+asyncpg://app@db/app"
SYNC = "postgresql+psycopg://app@db/app"
PASSWORDS = ["%", "@/:#?&+ ", "100%25", "p%(here)s", "[;'\"\\$`", "пароль🔑"]


@pytest.fixture(autouse=True)
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's root, without a .env yet; nothing is set and the shell is elsewhere."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for module in (app, migrations):
        monkeypatch.setattr(module, "ROOT", tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return tmp_path


def message(error: pytest.ExceptionInfo[ConfigurationError]) -> str:
    """What the operator sees, which is one line."""
    assert "\n" not in str(error.value)
    return str(error.value)


def test_urls_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    monkeypatch.setenv("DATABASE_URL_SYNC", SYNC)
    settings = Settings()
    assert (str(settings.database_url), str(settings.database_url_sync)) == (ASYNC, SYNC)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_a_bare_scheme_gets_the_driver(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"{scheme}://app@db/app")
    monkeypatch.setenv("DATABASE_URL_SYNC", f"{scheme}://app@db/app")
    settings = Settings()
    assert (str(settings.database_url), str(settings.database_url_sync)) == (ASYNC, SYNC)


def test_the_sync_url_is_derived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    assert str(Settings().database_url_sync) == SYNC


def test_the_async_url_is_derived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL_SYNC", SYNC)
    assert str(Settings().database_url) == ASYNC


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("DATABASE_URL_SYNC", SYNC)
    monkeypatch.setenv("DATABASE_POOLER", "")
    settings = Settings()
    assert (str(settings.database_url), settings.database_pooler) == (ASYNC, "none")


def test_with_a_pooler_the_sync_url_is_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    monkeypatch.setenv("DATABASE_POOLER", "pgbouncer")
    with pytest.raises(ConfigurationError) as error:
        Settings()
    assert "DATABASE_URL_SYNC is not set" in message(error)
    assert "postgresql+psycopg://" in message(error)


def test_no_url_names_the_variable_and_a_value() -> None:
    with pytest.raises(ConfigurationError) as error:
        Settings()
    assert "DATABASE_URL is not set" in message(error)
    assert "postgresql+asyncpg://" in message(error)


@pytest.mark.parametrize(
    ("name", "driver"),
    [("DATABASE_URL", "postgresql+asyncpg"), ("DATABASE_URL_SYNC", "postgresql+psycopg")],
)
@pytest.mark.parametrize(
    "value",
    [
        "postgresql+psycopg2://app:hunter2@db/app",
        "mysql://app:hunter2@db/app",
        "postgresql://app:hunter2@db:port/app",
        "postgresql://app:hunter2@hunter2@db/app",
        "postgresql://app:hunter2@hunter2,hunter2@db/app",
        "postgresql://app:hunter2@hunter2/hunter2@db/app",
        "app:hunter2@db/app",
        "hunter2",
    ],
)
def test_a_wrong_url_names_the_variable_and_a_value_but_no_password(
    monkeypatch: pytest.MonkeyPatch, name: str, driver: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as error:
        Settings()
    assert message(error).startswith(f"{name} ")
    assert f"{driver}://" in message(error)
    assert "hunter2" not in message(error)


@pytest.mark.parametrize(("name", "value"), [("DATABASE_URL", SYNC), ("DATABASE_URL_SYNC", ASYNC)])
def test_each_url_refuses_the_driver_of_the_other(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=f"^{name} has the driver"):
        Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [("DATABASE_POOLER", "odyssey"), ("MAX_BODY_SIZE", "1 MB"), ("MAX_BODY_SIZE", "0")],
)
def test_a_wrong_value_of_another_setting_names_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("DATABASE_URL_SYNC", SYNC)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as error:
        Settings()
    assert message(error).startswith(f"{name}: ")


@pytest.mark.parametrize(
    "place",
    [
        *("db.example.com/app", "db:5433/app", "localhost,db/app", "10.0.0.7/app"),
        *("/app?host=db", "localhost/app?hostaddr=10.0.0.7"),
    ],
)
@pytest.mark.parametrize("name", ["DATABASE_URL", "DATABASE_URL_SYNC"])
def test_the_examples_password_is_for_this_machine(
    monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    monkeypatch.setenv(name, f"postgresql://app:{EXAMPLE_PASSWORD}@{place}")
    for read in (Settings, lambda: migration_url(Config())):
        with pytest.raises(ConfigurationError, match=f"^{name} has the password of .env.example"):
            read()


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:5433", "[::1]", "%2Frun", ""])
def test_it_does_for_development(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("DATABASE_URL", f"postgresql://app:{EXAMPLE_PASSWORD}@{host}/app")
    assert Settings().database_url.password == EXAMPLE_PASSWORD


def test_the_example_has_no_other_password() -> None:
    example = dotenv_values(ROOT / ".env.example")
    urls = [make_url(str(example[name])) for name in ("DATABASE_URL", "DATABASE_URL_SYNC")]
    assert {url.password for url in urls} == {EXAMPLE_PASSWORD}


def test_lists_have_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    monkeypatch.setenv("ALLOWED_HOSTS", "API.example.com, *.example.org,")
    monkeypatch.setenv("CORS_ORIGINS", "https://www.example.com,http://localhost:3000")
    settings = Settings()
    assert settings.allowed_hosts == ["api.example.com", "*.example.org"]
    assert settings.cors_origins == ["https://www.example.com", "http://localhost:3000"]


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
def test_a_name_that_would_never_match_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, right: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as error:
        Settings()
    assert message(error).startswith(f"{name}: '{value.split()[-1]}' should look like ")
    assert right in message(error)


def test_a_password_among_the_parameters_is_masked_too() -> None:
    url = parse("DATABASE_URL", "postgresql://db/app?user=app&password=hunter2", "any")
    assert (url.username, url.password) == ("app", "hunter2")
    assert "hunter2" not in str(url)


def test_no_password_in_a_repr() -> None:
    settings = Settings(database_url="postgresql://app:hunter2@db/app")
    assert "hunter2" not in f"{settings!r} {settings}"


@pytest.mark.parametrize("password", PASSWORDS)
def test_any_password_reaches_both_drivers(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    url = URL.create("postgresql", "app", password, "db", database="app")
    monkeypatch.setenv("DATABASE_URL", url.render_as_string(hide_password=False))
    settings = Settings()
    async_dialect = create_async_engine(settings.database_url).dialect
    sync_dialect = create_engine(settings.database_url_sync).dialect
    assert async_dialect.create_connect_args(settings.database_url)[1]["password"] == password
    assert sync_dialect.create_connect_args(settings.database_url_sync)[1]["password"] == password


def test_settings_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    get_settings.cache_clear()
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    assert get_settings() is get_settings()
    get_settings.cache_clear()


def test_env_file_is_found_from_anywhere_and_may_hold_more(root: Path) -> None:
    (root / ".env").write_text(f"DATABASE_URL={ASYNC}\nSOMEBODY_ELSES=1\n")
    # The module is run again, apart, because the class keeps the path that it was made with.
    fresh_settings = runpy.run_path(str(ROOT / "app/config.py"))["Settings"]
    assert str(fresh_settings().database_url) == ASYNC


def test_the_environment_wins_over_the_env_file(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / ".env").write_text("DATABASE_URL=postgresql://app@old/app\n")
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    fresh_settings = runpy.run_path(str(ROOT / "app/config.py"))["Settings"]
    assert str(fresh_settings().database_url) == ASYNC


def test_migration_url_is_the_first_that_is_set(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = Config()
    monkeypatch.setenv("DATABASE_URL", "postgresql://app@derived/app")
    assert migration_url(config).host == "derived"
    config.set_main_option("sqlalchemy.url", "postgresql://app@ini/app")
    assert migration_url(config).host == "ini"
    (root / ".env").write_text("DATABASE_URL_SYNC=postgresql://app@file/app\n")
    assert migration_url(config).host == "file"
    monkeypatch.setenv("DATABASE_URL_SYNC", "postgresql://app@environment/app")
    assert migration_url(config).host == "environment"


def test_migration_url_always_has_the_sync_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", ASYNC)
    assert str(migration_url(Config())) == SYNC


@pytest.mark.parametrize("password", PASSWORDS)
def test_migration_url_keeps_any_password(monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    url = URL.create("postgresql", "app", password, "db", database="app")
    monkeypatch.setenv("DATABASE_URL_SYNC", url.render_as_string(hide_password=False))
    assert migration_url(Config()).password == password


def test_migration_url_needs_no_other_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL_SYNC", SYNC)
    monkeypatch.setenv("DATABASE_POOLER", "nonsense")
    assert str(migration_url(Config())) == SYNC


def test_migrations_refuse_two_databases(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / ".env").write_text("DATABASE_URL=postgresql://db/app\n")
    config = Config()
    config.set_main_option("sqlalchemy.url", "postgresql://db/ini")
    with pytest.raises(ConfigurationError, match=r"'app' and sqlalchemy.url of alembic.ini 'ini'"):
        migration_url(config)
    monkeypatch.setenv("DATABASE_URL_SYNC", "postgresql://db/other")
    assert migration_url(config).database == "other"
    monkeypatch.setenv("DATABASE_URL", "postgresql://db/app")
    with pytest.raises(ConfigurationError, match=r"'app' and DATABASE_URL_SYNC 'other'"):
        migration_url(config)


def test_no_migration_url_names_the_variable_and_a_value() -> None:
    with pytest.raises(ConfigurationError) as error:
        migration_url(Config())
    assert "DATABASE_URL_SYNC is not set" in message(error)
    assert "postgresql+psycopg://" in message(error)


def test_a_wrong_url_in_the_ini_says_so_but_no_password() -> None:
    config = Config()
    config.set_main_option("sqlalchemy.url", "mysql://app:hunter2@db/app")
    with pytest.raises(ConfigurationError) as error:
        migration_url(config)
    assert message(error).startswith("sqlalchemy.url of alembic.ini ")
    assert "hunter2" not in message(error)
