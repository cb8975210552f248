"""The login of /docs: authorization code with PKCE, as a public client of the provider."""

from base64 import b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_oauth2_redirect_html
from fastapi.responses import HTMLResponse

from app.config import Settings
from app.oidc.errors import ProviderUnavailable

METADATA = "docs/openid-configuration"  # relative to the page
ENDPOINTS = ("issuer", "authorization_endpoint", "token_endpoint")


def install_login(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """Return the arguments of `web.docs.install`; none without OIDC_DOCS_CLIENT_ID."""
    if not settings.oidc_docs_client_id:
        return {}
    install_scheme(app, settings.oidc_docs_scopes)
    install_redirect(app)
    url = urlsplit(settings.oidc_issuer)
    # With https, the provider may have its token endpoint on another host.
    token_endpoints = "https:" if url.scheme == "https" else f"http://{url.netloc}"
    oauth = {
        "clientId": settings.oidc_docs_client_id,
        "scopes": settings.oidc_docs_scopes,
        "usePkceWithAuthorizationCodeGrant": True,
        "additionalQueryStringParams": {"audience": settings.oidc_audience},  # for Auth0
    }
    return {"connect": f"'self' {token_endpoints}", "oauth": oauth}


def install_scheme(app: FastAPI, scopes: str) -> None:
    """Let Swagger UI offer these scopes only, of all that the provider supports."""
    describe, provider = app.openapi, app.state.oidc.provider

    def openapi() -> dict[str, Any]:
        document = describe()
        schemes = document.get("components", {}).get("securitySchemes", {})
        if "oidc" in schemes:
            schemes["oidc"] = {"type": "openIdConnect", "openIdConnectUrl": METADATA}
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way

    @app.get(f"/{METADATA}", include_in_schema=False)
    async def metadata() -> dict[str, Any]:
        if not provider.metadata:
            await provider.renew()
        found = {name: provider.metadata.get(name) for name in ENDPOINTS}
        if None in found.values():
            raise ProviderUnavailable
        supported = {"grant_types": ["authorization_code"], "scopes": scopes.split()}
        return found | {f"{name}_supported": value for name, value in supported.items()}


def install_redirect(app: FastAPI) -> None:
    """Serve the page to which the provider redirects the browser. It passes the code to /docs."""
    body = bytes(get_swagger_ui_oauth2_redirect_html().body)
    script = body.split(b"<script>")[1].split(b"</script>")[0]
    digest = b64encode(sha256(script).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; frame-ancestors 'none'"

    @app.get("/oauth2-redirect.html", include_in_schema=False)
    async def redirect() -> HTMLResponse:
        return HTMLResponse(body, headers={"Content-Security-Policy": policy})
