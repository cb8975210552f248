"""The bodies of requests and responses."""

from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.types import Id, Moment, Text

Name = Annotated[Text, Field(min_length=1, max_length=200)]
Email = Annotated[Text, Field(pattern=r"^[^@\s]+@[^@\s]+$", max_length=254)]


class CustomerCreate(BaseModel):
    """A new customer."""

    name: Name
    email: Email
    labels: list[Name] = Field(default_factory=list, max_length=20)
    details: dict[Name, Name | int | bool] = Field(default_factory=dict)


class CustomerChange(BaseModel):
    """A new name, and the version to which it applies."""

    name: Name
    version: Id


class CustomerRead(BaseModel):
    """A stored customer."""

    model_config = ConfigDict(from_attributes=True)

    id: UUID
    name: str
    email: str
    labels: list[str]
    details: dict[str, Any]
    created_at: Moment
    version: int
