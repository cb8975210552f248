"""The bodies of requests and responses."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from app.types import Id, Moment, Text, not_sent

Name = Annotated[Text, Field(min_length=1, max_length=200, examples=["Fountain pen"])]
Description = Annotated[Text, Field(max_length=10_000, examples=["Piston filler, fine nib"])]


class ItemCreate(BaseModel):
    """A new item."""

    name: Name
    description: Description | None = None


class ItemUpdate(BaseModel):
    """Changes to one item. A field that is left out keeps its value."""

    name: Name = Field(default_factory=not_sent)  # may be left out, but not null
    description: Description | None = None


class ItemRead(BaseModel):
    """A stored item. The limits above are not repeated: the row may be older than a limit."""

    model_config = ConfigDict(from_attributes=True)

    id: Id
    name: str = Field(examples=["Fountain pen"])
    description: str | None = Field(examples=["Piston filler, fine nib"])
    created_at: Moment
    updated_at: Moment


class ItemPage(BaseModel):
    """Items in the order of their ids. `next` is `after` of the following page, or null."""

    items: list[ItemRead]
    next: Id | None
