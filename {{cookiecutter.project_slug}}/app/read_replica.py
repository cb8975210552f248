"""ReadSession on a standby: DATABASE_URL_READ. `docs/scale.md` has the rules."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, FastAPI
from pydantic import BeforeValidator, Field, InstanceOf, ValidationInfo
from pydantic.functional_serializers import PlainSerializer
from pydantic_settings import NoDecode
from sqlalchemy import URL

from app.database import ConfigurationError, Reader, create_engine
from app.database.asyncpg_url import unknown_to_asyncpg
from app.database.settings import hide_secrets
from app.database.urls import ASYNC_DRIVER, parse

NAME = "DATABASE_URL_READ"


def check(value: str | URL | None, info: ValidationInfo) -> URL | None:
    """Read the URL of the standby. It must name the application's database."""
    if value is None:
        return None
    url, application = parse(NAME, value, ASYNC_DRIVER), info.data["database_url"]
    if unknown := unknown_to_asyncpg(url):
        asked = " and ".join(unknown)
        raise ConfigurationError(f"{NAME} asks for {asked}, which asyncpg does not support")
    name, expected = (it.database or it.username for it in (url, application))
    if name != expected:
        fault = f"{NAME} names the database {name!r} and DATABASE_URL {expected!r}"
        raise ConfigurationError(f"{fault}; both must name the same one")
    return url


ReadURL = Annotated[
    InstanceOf[URL] | None,
    BeforeValidator(check),
    NoDecode,
    PlainSerializer(hide_secrets, when_used="unless-none"),
    Field(repr=False),
]


@asynccontextmanager
async def read_from_standby(app: FastAPI) -> AsyncIterator[None]:
    """Give ReadSession an engine of its own while the application serves."""
    settings = app.state.settings
    if settings.database_url_read is None:
        yield
        return
    # A direct connection: DATABASE_POOLER is that of DATABASE_URL.
    values = {"database_url": settings.database_url_read, "database_pooler": "none"}
    engine = create_engine(settings.model_copy(update=values), app.title)
    app.state.database.reader = Reader(engine)
    yield
    await engine.dispose()


router = APIRouter(lifespan=read_from_standby)
