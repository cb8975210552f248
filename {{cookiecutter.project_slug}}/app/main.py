"""The application: what it is made of, in order."""

import gc
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import ROOT, docs, errors, health, logs, middleware, openapi
from app.config import Settings, get_settings
from app.database import Database, create_engine
from app.items import routes as items
from app.shutdown import CloseConnections, Shutdown


def create_app(settings: Settings | None = None) -> FastAPI:
    """A new application; `settings` default to the environment's."""
    about = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    settings = settings or get_settings()
    app = middleware.Application(
        title=about["name"],
        version=about["version"],
        description=about["description"],
        lifespan=lifespan,
        generate_unique_id_function=lambda route: route.name,  # OpenAPI's operationId
        max_body_size=settings.max_body_size,
        docs_url=None,  # in its place there is app/docs.py
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.shutdown = Shutdown(settings.shutdown_delay)
    app.include_router(health.router)
    app.include_router(items.router)
    docs.install(app)
    errors.install(app)
    openapi.install(app)
    middleware.install(app, settings)
    app.add_middleware(CloseConnections, shutdown=app.state.shutdown)
    logs.configure()  # before uvicorn's first line
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The engine lives as long as the application serves."""
    # By default the garbage collector runs every few requests, at a tenth of their cost, and
    # stops them for 80 ms where it looks through all that was imported.
    gc.freeze()
    gc.set_threshold(10_000)
    logs.configure()  # for `uvicorn.run(app)`, which comes after create_app()
    settings: Settings = app.state.settings
    engine = create_engine(settings)
    app.state.database = Database(engine)
    with app.state.shutdown.on_sigterm():
        yield
    await engine.dispose()


app = create_app()
