"""The application: what it is made of, in order."""

import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import ROOT, errors, health, middleware, openapi
from app.config import Settings, get_settings
from app.database import Database, create_engine
from app.items import routes as items


def create_app(settings: Settings | None = None) -> FastAPI:
    """A new application; `settings` default to the environment's."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    app = FastAPI(
        title=about["name"],
        version=about["version"],
        description=about["description"],
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,  # OpenAPI's operationId
    )
    app.state.settings = settings or get_settings()
    app.include_router(health.router)
    app.include_router(items.router)
    errors.install(app)
    openapi.install(app)
    middleware.install(app, app.state.settings)
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The engine lives as long as the application serves."""
    settings: Settings = app.state.settings
    engine = create_engine(settings.database_url, settings.database_pooler)
    app.state.database = Database(engine)
    yield
    await engine.dispose()


app = create_app()
