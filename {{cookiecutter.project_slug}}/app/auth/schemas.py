"""The bodies of requests and responses."""

from datetime import datetime
from typing import Annotated

from email_validator import validate_email
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr

from app.models.account import Role
from app.types import Id, Text


def normalize_email(value: str) -> str:
    """Return the address as it is stored, in ASCII. Its domain need not exist."""
    if "=?" in value:  # an encoded word, which mail software reads as another address
        raise ValueError("The address contains =?.")
    found = validate_email(
        value, allow_smtputf8=False, check_deliverability=False, test_environment=True
    )
    return str(found.ascii_email).lower()


# Long ones are refused first: to normalize one of a megabyte takes minutes.
Email = Annotated[
    str,
    Field(max_length=254, examples=["ann@example.com"], json_schema_extra={"format": "email"}),
    AfterValidator(normalize_email),
]
NewPassword = Annotated[SecretStr, Field(min_length=12, max_length=128)]
Password = Annotated[SecretStr, Field(min_length=1, max_length=128)]  # older rules may apply
MailedToken = Annotated[SecretStr, Field(min_length=1, max_length=128)]


class Address(BaseModel):
    email: Email


class Registration(Address):
    password: NewPassword


class Login(Address):
    password: Password


class Verification(BaseModel):
    token: MailedToken


class PasswordReset(Verification):
    password: NewPassword


class PasswordChange(BaseModel):
    current_password: Password
    password: NewPassword


class Confirmation(BaseModel):
    password: Password


class AccountRead(BaseModel):
    """The signed-in account. The role of a key is `user`."""

    id: Id
    email: str
    role: Role


class TokenRead(BaseModel):
    """A bearer token, which is shown this once."""

    token: str
    expires_at: datetime


class Row(BaseModel):
    """The times of a session or a key. It ends at `expires_at`."""

    model_config = ConfigDict(from_attributes=True)

    id: Id
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime


class SessionRead(Row):
    """A login. It ends at `expires_at`, or earlier if it is not used."""

    device: str = Field(validation_alias="name")
    address: str | None
    current: bool


class KeyCreate(BaseModel):
    name: Annotated[Text, Field(min_length=1, max_length=200, examples=["Nightly import"])]
    expires_in_days: Annotated[int, Field(ge=1, le=366)] = 90


class KeyRead(Row):
    """A key for a machine."""

    name: str


class KeyCreated(KeyRead):
    """A new key. Its token is shown this once."""

    token: str
