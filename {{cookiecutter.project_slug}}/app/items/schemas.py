"""What clients send and receive."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

BIGINT_END = 2**63  # one more than bigint holds; unlike that, a float, as in OpenAPI, is exact
NO_NUL = r"^[^\x00]*$"  # PostgreSQL's text cannot hold it

ItemId = Annotated[int, Field(ge=1, lt=BIGINT_END, examples=[1])]
Name = Annotated[
    str, Field(min_length=1, max_length=200, pattern=NO_NUL, examples=["Fountain pen"])
]
Description = Annotated[
    str, Field(max_length=10_000, pattern=NO_NUL, examples=["Piston filler, fine nib"])
]


class ItemCreate(BaseModel):
    """A new item."""

    name: Name
    description: Description | None = None


class ItemUpdate(BaseModel):
    """Changes to an item: what is left out stays as it is."""

    # The default is never read: only fields that were sent are. It lets `name` be left
    # out without letting it be null.
    name: Name = Field(default_factory=str)
    description: Description | None = None


class ItemRead(BaseModel):
    """An item as stored, whatever the rules were when it was."""

    model_config = ConfigDict(from_attributes=True)

    id: ItemId
    name: str = Field(examples=["Fountain pen"])
    description: str | None = Field(examples=["Piston filler, fine nib"])
    created_at: datetime
    updated_at: datetime


class ItemPage(BaseModel):
    """Items in the order of their ids; `next` is the `after` of the next page, if any."""

    model_config = ConfigDict(from_attributes=True)

    items: list[ItemRead]
    next: ItemId | None
