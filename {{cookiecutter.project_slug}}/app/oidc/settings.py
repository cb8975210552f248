"""The settings of the identity provider."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, StringConstraints

DISCOVERY = "/.well-known/openid-configuration"
LOOPBACK = {"localhost", "127.0.0.1", "::1"}


def is_secure(url: str) -> bool:
    """Tell whether the URL has https, or is of this machine. A wrong port is a ValueError."""
    parts = urlsplit(url)
    schemes = {"https", "http"} if parts.hostname in LOOPBACK else {"https"}
    return bool(parts.hostname and parts.scheme in schemes and parts.port != 0)


def check_issuer(value: str) -> str:
    """Return the issuer unchanged: tokens must have exactly this text."""
    try:
        valid = is_secure(value) and not set("?#@ \t\n") & set(value)
    except ValueError:  # its message may quote the URL
        valid = False
    if not valid or value.rstrip("/").endswith(DISCOVERY):
        example = "https://login.example.com/realms/main"
        raise ValueError(f"should be an https URL like {example}, without {DISCOVERY}")
    return value


Issuer = Annotated[str, AfterValidator(check_issuer)]
Audience = Annotated[str, StringConstraints(pattern=r"^\S+$")]
