"""Access tokens: JSON Web Tokens that the identity provider has signed (RFC 9068, RFC 8725)."""

import json
import logging
from dataclasses import dataclass, field
from typing import Any

from joserfc import jws
from joserfc.errors import (
    BadSignatureError,
    ClaimError,
    InvalidKeyIdError,
    InvalidPayloadError,
    JoseError,
    UnsupportedHeaderError,
)
from joserfc.jws import JWSRegistry
from joserfc.jwt import JWTClaimsRegistry

from app.oidc.errors import InvalidToken
from app.oidc.provider import Provider

# Asymmetric only: HS256, with a public key as its secret, would accept anybody's signature.
ALGORITHMS = {
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "Ed25519"),
}
TYPES = {"jwt", "at+jwt", "application/at+jwt"}  # `typ` of the header, which may be missing
LEEWAY = 30  # seconds of allowed clock skew

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class User:
    """The subject of an access token: a person, or a client that acts for itself."""

    id: str  # unique for this issuer
    scopes: frozenset[str]
    claims: dict[str, Any] = field(repr=False)


class Registry(JWSRegistry):
    """The rules for headers. One that holds a key or its address is ignored."""

    def get_alg(self, name: str) -> Any:  # RFC 9864 renamed EdDSA
        return super().get_alg("Ed25519" if name == "EdDSA" else name)


REGISTRY = Registry(algorithms=ALGORITHMS, strict_check_header=False)


class Verifier:
    """Accepts the tokens of one issuer for one audience."""

    def __init__(self, issuer: str, audience: str) -> None:
        self.provider = Provider(issuer)
        self.claims = JWTClaimsRegistry(
            leeway=LEEWAY,
            iss={"essential": True, "value": issuer},
            aud={"essential": True, "value": audience},
            exp={"essential": True},
            sub={"essential": True},
        )

    async def verify(self, token: str) -> User:
        """Return the user. Raises InvalidToken or ProviderUnavailable."""
        try:
            claims = await self.read(token)
            self.claims.validate(claims)
        except (JoseError, RecursionError, TypeError, ValueError) as error:
            claim = f" {error.claim}" if isinstance(error, ClaimError) else ""
            logger.info("A token was refused: %s%s", type(error).__name__, claim)
            raise InvalidToken("The token is not valid or has expired: log in.") from None
        return User(claims["sub"], find_scopes(claims), claims)

    async def read(self, token: str) -> dict[str, Any]:
        """Return the claims of a token whose signature is right."""
        parts = jws.extract_compact(token.encode(), registry=REGISTRY)
        header = parts.headers()
        REGISTRY.check_header(header)
        if header.keys() & {"crit", "b64"} or header.get("typ", "jwt").lower() not in TYPES:
            raise UnsupportedHeaderError
        key = await self.provider.key(header["kid"]) if "kid" in header else None
        if key is None:
            raise InvalidKeyIdError
        if not jws.validate_compact(parts, key, registry=REGISTRY):
            raise BadSignatureError
        claims = json.loads(parts.payload)
        if not isinstance(claims, dict):
            raise InvalidPayloadError
        return claims


def find_scopes(claims: dict[str, Any]) -> frozenset[str]:
    """Return the scopes of `scope` and of Entra's `scp`: words or a list, else none."""
    scopes: set[str] = set()
    for value in (claims.get("scope"), claims.get("scp")):
        words = value.split() if isinstance(value, str) else value
        if isinstance(words, list):
            scopes.update(word for word in words if isinstance(word, str))
    return frozenset(scopes)
