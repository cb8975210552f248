"""ReadSession on the connection of DATABASE_URL_READ."""

import pytest
from conftest import settings_for
from sqlalchemy import URL, func, select

from app.database import ConfigurationError, Database
from app.database.urls import ASYNC_DRIVER
from app.main import create_app

NAME = select(func.current_setting("application_name"))


async def test_reader_has_the_connection_of_the_standby(fresh_url: URL) -> None:
    standby = fresh_url.set(drivername=ASYNC_DRIVER).update_query_dict({"application_name": "ro"})
    app = create_app(settings_for(fresh_url, database_url_read=standby))
    async with app.router.lifespan_context(app):
        database: Database = app.state.database
        assert await database.reader.scalar(NAME) == "ro"
        async with database.sessions() as session:
            assert await session.scalar(NAME) == app.title


async def test_without_a_standby_the_reader_uses_the_pool_of_sessions(fresh_url: URL) -> None:
    app = create_app(settings_for(fresh_url))
    async with app.router.lifespan_context(app):
        assert await app.state.database.reader.scalar(NAME) == app.title


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("postgresql://app@standby/other", "names the database 'other'"),
        ("postgresql+psycopg://app@standby/app", "has the driver postgresql+psycopg"),
        ("postgresql://app@standby/app?keepalives=1", "asks for keepalives"),
    ],
)
def test_wrong_url_is_one_line(url: str, reason: str) -> None:
    application = URL.create("postgresql+psycopg", "app", host="primary", database="app")
    with pytest.raises(ConfigurationError, match="DATABASE_URL_READ ") as caught:
        settings_for(application, database_url_read=url)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
