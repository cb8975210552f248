"""An application with the imports and the number of routes of the generated one, and no more."""

import alembic.config
import alembic.runtime.migration
import alembic.script
import asyncpg
import dotenv
import fastapi
import psycopg
import pydantic_settings
import sqlalchemy.ext.asyncio
from fastapi.middleware.cors import CORSMiddleware

ROUTES = {
    "/health/live": ["GET"],
    "/health/ready": ["GET"],
    "/items": ["GET", "POST"],
    "/items/{item_id}": ["GET", "PATCH", "DELETE"],
}
IMPORTED = (alembic, asyncpg, dotenv, psycopg, pydantic_settings, CORSMiddleware)


async def answer() -> dict[str, str]:
    return {}


app = fastapi.FastAPI()
engine = sqlalchemy.ext.asyncio.create_async_engine("postgresql+asyncpg://localhost/app")
for path, methods in ROUTES.items():
    for method in methods:
        app.add_api_route(path, answer, methods=[method])
