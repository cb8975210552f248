"""The application: its middleware, its routers, and its lifespan."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.middleware import Middleware

import app.web.telemetry as telemetry  # option: telemetry=yes
from app.auth import dependencies as auth  # option: auth=accounts
from app.auth.routes import router as auth_router  # option: auth=accounts
from app.config import Settings, get_settings
from app.database import Database, create_engine
from app.items import routes as items
from app.jobs import worker  # option: jobs=yes
from app.oidc import dependencies as auth  # option: auth=oidc
from app.oidc.docs import install_login  # option: auth=oidc
from app.read_replica import router as replica_router  # option: kubernetes=yes
from app.web import docs, health, logs, openapi, problems
from app.web.middleware import Application, RequestContext, allowed_hosts, cors
from app.web.shutdown import Shutdown


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return a new application. `settings` are by default get_settings()."""
    settings = settings or get_settings()
    logs.configure()  # first, for the server's first line
    shutdown = Shutdown(settings.shutdown_delay_seconds)
    app = Application(
        **openapi.about_project(),
        lifespan=lifespan,
        generate_unique_id_function=openapi.operation_id,
        max_body_size=settings.max_body_size,
        telemetry=telemetry.config(),  # option: telemetry=yes
        openapi_url="/openapi.json" if settings.api_docs else None,
        docs_url=None,  # see web/docs.py
        redoc_url=None,
        # Each from top to bottom. FastAPI's own 413 and 500 pass the outer list only.
        outer_middleware=[
            Middleware(RequestContext, shutdown),  # first, since its id is in every log line
            *cors(settings.cors_origins),  # around errors, which need its headers too
        ],
        middleware=allowed_hosts(settings.allowed_hosts),
    )
    app.state.settings = settings
    app.state.shutdown = shutdown
    problems.install(app)
    auth.install(app, settings)  # option: auth=accounts,oidc
    app.include_router(auth_router)  # option: auth=accounts
    app.include_router(items.router)  # option: auth=none
    app.include_router(auth.signed_in(items.router))  # option: auth=accounts
    app.include_router(auth.signed_in(items.router, "items"))  # option: auth=oidc
    app.include_router(worker.router)  # option: jobs=yes
    app.include_router(replica_router)  # option: kubernetes=yes
    app.include_router(telemetry.router)  # option: telemetry=yes
    app.include_router(health.router)  # last: each request tries the routers in this order
    if settings.api_docs:
        docs.install(app)  # option: auth=none,accounts
        docs.install(app, **install_login(app, settings))  # option: auth=oidc
    return app


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the database and handle SIGTERM while the application serves."""
    logs.configure()  # again: `uvicorn.run(app)` replaces that of create_app()
    gc.freeze()  # imports are never garbage, and a scan of them would pause all requests
    gc.set_threshold(10_000)  # scan new objects less often
    engine = create_engine(app.state.settings, app.title)
    probe = create_engine(app.state.settings, app.title, pool_size=1, max_overflow=0)
    app.state.database = Database(engine, probe)
    with app.state.shutdown.on_sigterm():
        yield
    await engine.dispose()
    await probe.dispose()


app = create_app()
