"""Settings as typed values. An environment variable takes precedence over `.env`."""

import re
import sys
from functools import cache
from typing import Annotated

from pydantic import NonNegativeFloat, PositiveInt, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from app.auth import settings as auth  # option: auth=accounts
from app.database import ConfigurationError, DatabaseSettings
from app.oidc import settings as oidc  # option: auth=oidc
from app.read_replica import ReadURL  # option: kubernetes=yes

Names = Annotated[list[str], NoDecode]  # not JSON: separated by commas or spaces

# For each setting, the pattern of one value and an example. Another form would match no request.
PATTERNS = {
    "allowed_hosts": (r"\*|(\*\.)?[a-z0-9._-]+", "api.example.com or *.example.com"),
    "cors_origins": (r"\*|https?://[a-z0-9._-]+(:\d+)?", "https://www.example.com"),
}


class Settings(DatabaseSettings):
    """The variables of this process. Each field is an upper-case environment variable."""

    allowed_hosts: Names = ["*"]
    cors_origins: Names = []
    api_docs: bool = True  # serve /docs and /openapi.json
    max_body_size: PositiveInt = 1_000_000  # bytes of a request
    shutdown_delay_seconds: NonNegativeFloat = 5
    database_url_read: ReadURL = None  # option: kubernetes=yes
    worker_in_server: bool = False  # option: jobs=yes
    mail_url: auth.MailURL  # option: auth=accounts
    mail_from: auth.Sender  # option: auth=accounts
    auth_page_url: auth.PageURL = None  # option: auth=accounts
    session_idle_seconds: auth.Lifetime = 14 * 86400  # option: auth=accounts
    session_lifetime_seconds: auth.Lifetime = 90 * 86400  # option: auth=accounts
    oidc_issuer: oidc.Issuer  # option: auth=oidc
    oidc_audience: oidc.Audience  # option: auth=oidc
    oidc_docs_client_id: str = ""  # option: auth=oidc
    oidc_docs_scopes: str = "openid"  # option: auth=oidc

    @field_validator(*PATTERNS, mode="before")
    @classmethod
    def split_names(cls, value: str | list[str], info: ValidationInfo) -> list[str]:
        names = value.lower().replace(",", " ").split() if isinstance(value, str) else value
        pattern, example = PATTERNS[str(info.field_name)]
        for name in names:
            if not re.fullmatch(pattern, name):
                raise ValueError(f"{name!r} should look like {example}")
        return names


@cache
def get_settings() -> Settings:
    """Return the settings of this process, read once. Exits with one line for each error."""
    try:
        return Settings()
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        sys.exit(3)  # uvicorn's supervisor does not restart a worker that exits with 3
