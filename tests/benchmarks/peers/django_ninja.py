"""Django Ninja under ASGI, with psycopg's pool and no middleware."""

from datetime import datetime

import django
from django.conf import settings

settings.configure(
    ALLOWED_HOSTS=["*"],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": "app",
            "OPTIONS": {"pool": {"min_size": 15, "max_size": 15}},
        }
    },
    ROOT_URLCONF=__name__,
    USE_TZ=True,
)
django.setup()

from django.core.handlers.asgi import ASGIHandler  # noqa: E402 - needs the settings
from django.db import models  # noqa: E402
from django.db.models.functions import Now  # noqa: E402
from django.shortcuts import aget_object_or_404  # noqa: E402
from django.urls import path  # noqa: E402
from ninja import Field, NinjaAPI, Schema  # noqa: E402
from starlette.routing import Router  # noqa: E402
from starlette.types import Receive, Scope, Send  # noqa: E402


class Item(models.Model):
    name = models.TextField(unique=True)
    description = models.TextField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        app_label = "app"
        db_table = "items"


class ItemCreate(Schema):
    name: str = Field(min_length=1, max_length=200)
    description: str | None = None


class ItemRead(Schema):
    id: int
    name: str
    description: str | None
    created_at: datetime
    updated_at: datetime


class ItemPage(Schema):
    items: list[ItemRead]
    next: int | None


api = NinjaAPI()


@api.get("/items", response=ItemPage)
async def list_items(request, limit: int = 50, after: int = 0):
    query = Item.objects.filter(id__gt=after).order_by("id")[: limit + 1]
    items = [item async for item in query]
    return {"items": items[:limit], "next": items[limit - 1].id if len(items) > limit else None}


@api.get("/items/{item_id}", response=ItemRead)
async def read_item(request, item_id: int):
    return await aget_object_or_404(Item, id=item_id)


@api.post("/items", response={201: ItemRead})
async def create_item(request, new: ItemCreate):
    return 201, await Item.objects.acreate(**new.dict())


urlpatterns = [path("", api.urls)]
handler, lifespan = ASGIHandler(), Router()


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve with Django, which has no lifespan: without one the benchmark sees no start."""
    await (lifespan if scope["type"] == "lifespan" else handler)(scope, receive, send)
