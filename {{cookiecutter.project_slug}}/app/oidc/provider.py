"""The keys of the identity provider: fetched when needed, and kept."""

import asyncio
import json
import logging
from time import monotonic
from typing import Any

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, OKPKey, RSAKey, import_key

from app.oidc.errors import ProviderUnavailable
from app.oidc.settings import DISCOVERY, is_secure

MAX_AGE = 600  # seconds after which the keys are fetched again
PAUSE = 5  # seconds between two attempts, whatever tokens come
TIMEOUT = 5  # seconds for both requests of an attempt
MAX_SIZE = 500_000  # bytes of a response
SECRETS = {"d", "k"}  # members of private and of symmetric keys
MODULUS = 342  # characters of the modulus of 2048 bits

logger = logging.getLogger(__name__)


class Provider:
    """Fetches keys once for all requests that wait, and at most every PAUSE seconds."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.metadata: dict[str, Any] = {}
        self.keys: dict[str, Key] = {}
        self.failed = False
        self.fresh_until = self.next_attempt = 0.0  # by monotonic()
        self.attempt: asyncio.Task[None] | None = None

    async def key(self, key_id: str) -> Key | None:
        """Return the key, or None if the provider has none of this id.

        Known keys never wait for the provider. Raises ProviderUnavailable.
        """
        if key_id not in self.keys:
            await self.renew()
            if self.failed and key_id not in self.keys:
                raise ProviderUnavailable
        elif monotonic() > self.fresh_until:
            self.start_attempt()
        return self.keys.get(key_id)

    async def renew(self) -> None:
        """Wait for the running attempt, or for a new one if the last was PAUSE ago."""
        self.start_attempt()
        if self.attempt:
            await asyncio.shield(self.attempt)  # others may wait for it too

    def start_attempt(self) -> None:
        running = self.attempt and not self.attempt.done()
        if not running and monotonic() >= self.next_attempt:
            self.attempt = asyncio.create_task(self.fetch())

    async def fetch(self) -> None:
        """Replace the keys. After a failure the old ones stay."""
        try:
            async with asyncio.timeout(TIMEOUT), httpx.AsyncClient(timeout=TIMEOUT) as client:
                self.metadata = await fetch_metadata(client, self.issuer)
                self.keys = await fetch_keys(client, self.metadata.get("jwks_uri"))
            self.failed, self.fresh_until = False, monotonic() + MAX_AGE
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RecursionError) as error:
            self.failed = True
            reason = str(error).partition("\n")[0] or type(error).__name__
            logger.error("The identity provider %s cannot be used: %s", self.issuer, reason)
        finally:
            self.next_attempt = monotonic() + PAUSE


async def fetch_metadata(client: httpx.AsyncClient, issuer: str) -> dict[str, Any]:
    metadata = await fetch_object(client, issuer.rstrip("/") + DISCOVERY)
    if metadata.get("issuer") != issuer:
        raise ValueError(f"OIDC_ISSUER should be {str(metadata.get('issuer'))[:200]!r}")
    return metadata


async def fetch_keys(client: httpx.AsyncClient, url: Any) -> dict[str, Key]:
    if not isinstance(url, str) or not is_secure(url):
        raise ValueError("its jwks_uri is no https URL")
    listed = (await fetch_object(client, url)).get("keys")
    found = map(read_key, listed if isinstance(listed, list) else [])
    keys = {key.kid: key for key in found if key and key.kid}
    if not keys:
        raise ValueError("it has no keys of a known type")
    return keys


async def fetch_object(client: httpx.AsyncClient, url: str) -> dict[str, Any]:
    """Return a JSON object of limited size. It is not compressed: a small body could be huge."""
    body = b""
    async with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
        response.raise_for_status()  # also of a redirect
        async for part in response.aiter_raw():
            body += part
            if len(body) > MAX_SIZE:
                raise ValueError(f"{url} is too large")
    found = json.loads(body)
    if not isinstance(found, dict):
        raise ValueError(f"{url} is no JSON object")
    return found


def read_key(data: Any) -> Key | None:
    """Return a public key, or None: other ones do not matter."""
    if not isinstance(data, dict) or data.keys() & SECRETS:
        return None
    if data.get("kty") == "RSA" and len(str(data.get("n"))) < MODULUS:
        return None
    if data.get("alg") == "EdDSA":
        data["alg"] = "Ed25519"  # as RFC 9864 calls it
    try:
        key = import_key(data)
    except (JoseError, ArithmeticError, LookupError, TypeError, ValueError):
        return None
    return key if isinstance(key, RSAKey | ECKey | OKPKey) else None
