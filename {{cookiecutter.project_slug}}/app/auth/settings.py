"""The types of the settings in app/config.py."""

from contextlib import suppress
from email.headerregistry import Address
from typing import Annotated, Any

from pydantic import AfterValidator, AnyHttpUrl, BeforeValidator, Field, InstanceOf, NameEmail
from pydantic.functional_serializers import PlainSerializer
from pydantic_settings import NoDecode
from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

# The arguments of aiosmtplib. TLS is required and verified unless the scheme says `plain`.
SCHEMES: dict[str, dict[str, Any]] = {
    "smtp": {"start_tls": True},  # port 587
    "smtps": {"use_tls": True},  # port 465
    "smtp+plain": {"start_tls": False},  # port 25: a relay on this machine
    "console": {},  # development: mails are printed
}
EXAMPLE = "smtp://user:password@mail.example.com, or console:// in development"


def parse_mail_url(value: URL | str) -> URL:
    with suppress(ArgumentError, ValueError):  # whose message may quote the password
        url = make_url(value)
        if url.drivername in SCHEMES and bool(url.host) != (url.drivername == "console"):
            return url
    raise ValueError(f"should look like {EXAMPLE}")


MailURL = Annotated[
    InstanceOf[URL],
    BeforeValidator(parse_mail_url),
    NoDecode,
    PlainSerializer(str),  # masks the password
    Field(repr=False),
]
# Address puts a name with a comma in quotes.
Sender = Annotated[NameEmail, AfterValidator(lambda it: str(Address(it.name, addr_spec=it.email)))]
PageURL = Annotated[AnyHttpUrl, AfterValidator(str)] | None
Lifetime = Annotated[float, Field(ge=300, le=10 * 366 * 86400)]  # seconds
