"""Fixtures of access tokens: a provider's key, and a user who is signed in."""

from collections.abc import Callable
from math import inf
from time import time
from typing import Any

import pytest
from fastapi import FastAPI
from httpx import AsyncClient
from joserfc import jwt
from joserfc.jwk import ECKey

from app.oidc.dependencies import SCOPES
from app.oidc.tokens import User, Verifier

KEY = ECKey.generate_key("P-256", {"kid": "test", "alg": "ES256", "use": "sig"})
SignIn = Callable[..., User]


def sign(claims: dict[str, Any], key: Any = KEY, **header: Any) -> str:
    """Return a token with these claims, as the provider of this key signs it."""
    header = {"alg": key.alg, "kid": key.kid} | header
    return jwt.encode(header, claims, key, algorithms=[header["alg"]])


def claims_for(app: FastAPI, **more: Any) -> dict[str, Any]:
    """Return claims that `app` accepts, with every scope that a route of it asks for."""
    settings, now = app.state.settings, int(time())
    return {
        "iss": settings.oidc_issuer,
        "aud": settings.oidc_audience,
        "sub": "ann",
        "iat": now,
        "exp": now + 300,
        "scope": " ".join(sorted(SCOPES)),
    } | more


def trust_key(app: FastAPI) -> FastAPI:
    """Give the application the key, as if the provider had sent it."""
    verifier: Verifier = app.state.oidc
    verifier.provider.keys, verifier.provider.fresh_until = {"test": KEY}, inf
    return app


@pytest.fixture
def sign_in(request: pytest.FixtureRequest) -> SignIn:
    """`sign_in(scope="items:read")`: `client` or `served_client` sends a token with this claim."""
    served = "served_" if "served_client" in request.fixturenames else ""
    app = trust_key(request.getfixturevalue(f"{served}app"))
    client: AsyncClient = request.getfixturevalue(f"{served}client")

    def sign_in(**claims: Any) -> User:
        claims = claims_for(app, **claims)
        client.headers["authorization"] = f"Bearer {sign(claims)}"
        return User(claims["sub"], frozenset(claims["scope"].split()), claims)

    return sign_in


@pytest.fixture
def signed_in(sign_in: SignIn) -> User:
    """The user of `client`, or of `served_client`, with every scope."""
    return sign_in()
