"""Access tokens over HTTP, on routes of a feature of these tests."""

from typing import Any

import pytest
from access_tokens import KEY, SignIn, claims_for, sign, trust_key
from conftest import client_of, settings_for
from fastapi import APIRouter, FastAPI
from httpx import AsyncClient
from joserfc.jwk import ECKey
from sqlalchemy import URL

from app.database import ConfigurationError
from app.main import create_app
from app.oidc.dependencies import CurrentUser, require, signed_in
from app.oidc.tokens import User

router = APIRouter(prefix="/things")
OTHER_KEY = ECKey.generate_key("P-256", {"kid": "test", "alg": "ES256"})


@router.get("")
async def read() -> None:
    """Do nothing."""


@router.post("", status_code=201)
async def create() -> None:
    """Do nothing."""


@pytest.fixture
def app(app: FastAPI) -> FastAPI:
    app.include_router(signed_in(router, "things"))
    return app


async def send(client: AsyncClient, token: str) -> tuple[int, str | None]:
    response = await client.get("/things", headers={"authorization": f"Bearer {token}"})
    return response.status_code, response.headers.get("www-authenticate")


async def test_routes_need_a_token(client: AsyncClient) -> None:
    for headers in ({}, {"authorization": "Basic YTpi"}):
        response = await client.get("/things", headers=headers)
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.json()["detail"] == "This needs an access token: log in."


@pytest.mark.parametrize(
    ("scope", "read", "write"),
    [
        ("things:read", 200, 403),
        ("things:write", 403, 201),
        ("things:read things:write", 200, 201),
        ("things things:readers", 403, 403),
    ],
)
async def test_routes_need_a_scope_by_method(
    client: AsyncClient, sign_in: SignIn, scope: str, read: int, write: int
) -> None:
    sign_in(scope=scope)
    responses = [await client.get("/things"), await client.post("/things")]
    assert [response.status_code for response in responses] == [read, write]
    if write == 403:
        header = 'Bearer error="insufficient_scope", scope="things:write"'
        assert responses[1].headers["www-authenticate"] == header
        assert responses[1].json()["detail"] == "This needs the scope things:write."


@pytest.mark.parametrize("scopes", ["things:read mail", ["things:read", "mail"]])
async def test_entra_sends_scopes_as_scp(app: FastAPI, client: AsyncClient, scopes: Any) -> None:
    claims = claims_for(trust_key(app), scp=scopes)
    del claims["scope"]
    assert await send(client, sign(claims)) == (200, None)


@pytest.mark.parametrize("scopes", [7, True, None, {"things:read": 1}, [7, ["things:read"]]])
async def test_scopes_of_another_type_grant_nothing(
    app: FastAPI, client: AsyncClient, scopes: Any
) -> None:
    token = sign(claims_for(trust_key(app), scope=scopes, scp=scopes))
    assert (await send(client, token))[0] == 403


async def test_user_has_the_claims(app: FastAPI, client: AsyncClient, signed_in: User) -> None:
    @app.get("/me", dependencies=[require("me:read")])
    async def me(user: CurrentUser) -> list[Any]:
        return [user.id, user.claims["email"], sorted(user.scopes)]

    claims = claims_for(app, email="ann@example.com", scope="me:read")
    response = await client.get("/me", headers={"authorization": f"Bearer {sign(claims)}"})
    assert response.json() == ["ann", "ann@example.com", ["me:read"]]
    assert (await client.get("/me")).status_code == 403
    assert "ann@example.com" not in repr(User("ann", frozenset(), claims))


@pytest.mark.parametrize("audience", ["{}", ["other", "{}"]])
async def test_audience_may_be_one_of_several(
    app: FastAPI, client: AsyncClient, audience: str | list[str]
) -> None:
    name = app.state.settings.oidc_audience
    given: Any = name if isinstance(audience, str) else ["other", name]
    assert (await send(client, sign(claims_for(trust_key(app), aud=given))))[0] == 200


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": None},
        {"iss": "https://evil.example.com"},
        {"iss": None},
        {"exp": 1_700_000_000},
        {"exp": None},
        {"nbf": 4_000_000_000},
        {"iat": 4_000_000_000},
        {"sub": None},
        {"sub": ""},
    ],
    ids=str,
)
async def test_wrong_claim_is_refused(
    app: FastAPI, client: AsyncClient, change: dict[str, Any]
) -> None:
    claims = {k: v for k, v in claims_for(trust_key(app), **change).items() if v is not None}
    assert await send(client, sign(claims)) == (401, 'Bearer error="invalid_token"')


async def test_wrong_signature_is_refused(app: FastAPI, client: AsyncClient) -> None:
    claims = claims_for(trust_key(app))
    assert (await send(client, sign(claims, KEY)))[0] == 200
    assert await send(client, sign(claims, OTHER_KEY)) == (401, 'Bearer error="invalid_token"')


async def test_token_in_the_query_string_does_not_count(app: FastAPI, client: AsyncClient) -> None:
    token = sign(claims_for(trust_key(app)))
    assert (await client.get("/things", params={"access_token": token})).status_code == 401


RULE = (
    "OIDC_ISSUER: should be an https URL like https://login.example.com/realms/main, without "
    "/.well-known/openid-configuration"
)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"oidc_issuer": "http://login.example.com"}, RULE),
        ({"oidc_issuer": "https://"}, RULE),
        ({"oidc_issuer": "https://["}, RULE),
        ({"oidc_issuer": "https://login.example.com:99999"}, RULE),
        ({"oidc_issuer": "https://me:secret@login.example.com"}, RULE),
        ({"oidc_issuer": "https://a.example.com/.well-known/openid-configuration"}, RULE),
        ({"oidc_audience": ""}, "OIDC_AUDIENCE: String should match pattern '^\\S+$'"),
    ],
)
def test_wrong_setting_is_one_line(worker_url: URL, values: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        settings_for(worker_url, **values)
    assert str(error.value) == message


@pytest.mark.parametrize(
    "issuer", ["https://tenant.auth0.com/", "http://localhost:8080/realms/main", "http://[::1]:1"]
)
def test_issuer_is_kept_as_it_is_written(worker_url: URL, issuer: str) -> None:
    assert settings_for(worker_url, oidc_issuer=issuer).oidc_issuer == issuer


async def test_docs_log_in_with_pkce(worker_url: URL) -> None:
    settings = settings_for(worker_url, oidc_docs_client_id="docs", oidc_docs_scopes="openid a:b")
    app = create_app(settings)
    app.include_router(signed_in(router, "things"))
    async with client_of(app) as client:
        page = await client.get("/docs")
        redirect = await client.get("/oauth2-redirect.html")
        scheme = (await client.get("/openapi.json")).json()["components"]["securitySchemes"]
    assert '"clientId": "docs", "scopes": "openid a:b"' in page.text
    assert '"usePkceWithAuthorizationCodeGrant": true' in page.text
    assert "connect-src 'self' https:;" in page.headers["content-security-policy"]
    assert redirect.headers["content-security-policy"].startswith("default-src 'none'; script-src")
    url = "docs/openid-configuration"  # of the provider, without what /docs does not use
    assert scheme == {"oidc": {"type": "openIdConnect", "openIdConnectUrl": url}}


async def test_docs_take_a_token_without_a_client_id(client: AsyncClient) -> None:
    scheme = (await client.get("/openapi.json")).json()["components"]["securitySchemes"]["oidc"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert (await client.get("/oauth2-redirect.html")).status_code == 404
    assert "http" not in (await client.get("/docs")).headers["content-security-policy"]
