"""FastAPI and SQLAlchemy with the number of routes of the generated application, and no more."""

from fastapi import FastAPI
from sqlalchemy.ext.asyncio import create_async_engine

ROUTES = {
    "/health/live": ["GET"],
    "/health/ready": ["GET"],
    "/items": ["GET", "POST"],
    "/items/{item_id}": ["GET", "PATCH", "DELETE"],
}


async def answer() -> dict[str, str]:
    return {}


app = FastAPI()
engine = create_async_engine("postgresql+asyncpg://localhost/app")
for path, methods in ROUTES.items():
    for method in methods:
        app.add_api_route(path, answer, methods=[method])
