"""The bodies of requests and responses."""

from datetime import datetime
from typing import Annotated

from email_validator import validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from app.models.account import Role
from app.types import Id, Text


def normalize_email(value: str) -> str:
    """Return the address as it is stored. Its domain need not exist, and may be `test`."""
    found = validate_email(value, check_deliverability=False, test_environment=True)
    return found.normalized.lower()


Email = Annotated[
    str,
    AfterValidator(normalize_email),
    Field(max_length=254, examples=["ann@example.com"], json_schema_extra={"format": "email"}),
]
NewPassword = Annotated[SecretStr, Field(min_length=12, max_length=128)]
Password = Annotated[SecretStr, Field(min_length=1, max_length=128)]  # older rules may apply
MailedToken = Annotated[SecretStr, Field(min_length=1, max_length=128)]
KeyName = Annotated[Text, Field(min_length=1, max_length=200, examples=["Nightly import"])]
Days = Annotated[int, Field(ge=1, le=366)]


class Registration(BaseModel):
    email: Email
    password: NewPassword


class Login(BaseModel):
    email: Email
    password: Password


class Address(BaseModel):
    email: Email


class Verification(BaseModel):
    token: MailedToken


class PasswordReset(BaseModel):
    token: MailedToken
    password: NewPassword


class PasswordChange(BaseModel):
    current_password: Password
    password: NewPassword


class Confirmation(BaseModel):
    password: Password


class AccountRead(BaseModel):
    """The signed-in account. The role of a key is `user`."""

    model_config = ConfigDict(from_attributes=True)

    id: Id
    email: str
    role: Role


class TokenRead(BaseModel):
    """A bearer token, which is shown this once."""

    token: str
    expires_at: datetime


class SessionRead(BaseModel):
    """A login. It ends at `expires_at`, or earlier if it is not used."""

    model_config = ConfigDict(from_attributes=True)

    id: Id
    device: str = Field(validation_alias="name")
    address: str | None
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    current: bool


class KeyCreate(BaseModel):
    name: KeyName
    expires_in_days: Days = 90


class KeyRead(BaseModel):
    """A key for a machine."""

    model_config = ConfigDict(from_attributes=True)

    id: Id
    name: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


class KeyCreated(KeyRead):
    """A new key. Its token is shown this once."""

    token: str
