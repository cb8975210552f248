"""The bodies of requests and responses."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.types import Id, Text

Name = Annotated[Text, Field(min_length=1, max_length=200, examples=["Fountain pen"])]
Description = Annotated[Text, Field(max_length=10_000, examples=["Piston filler, fine nib"])]


class ItemCreate(BaseModel):
    """A new item."""

    name: Name
    description: Description | None = None


class ItemUpdate(BaseModel):
    """Changes to one item. A field that is left out keeps its value."""

    # The default is never used, since only the fields that were sent are applied. It makes
    # `name` optional without making it nullable.
    name: Name = Field(default_factory=str)
    description: Description | None = None


class ItemRead(BaseModel):
    """A stored item, which may be older than today's rules for new ones."""

    model_config = ConfigDict(from_attributes=True)

    id: Id
    name: str = Field(examples=["Fountain pen"])
    description: str | None = Field(examples=["Piston filler, fine nib"])
    created_at: datetime
    updated_at: datetime


class ItemPage(BaseModel):
    """Items in the order of their ids. Pass `next` as `after` to get the following page."""

    model_config = ConfigDict(from_attributes=True)

    items: list[ItemRead]
    next: Id | None
