"""The login of /docs: authorization code with PKCE, as a public client of the provider."""

from base64 import b64encode
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_oauth2_redirect_html
from fastapi.responses import HTMLResponse

from app.config import Settings
from app.oidc.settings import DISCOVERY


def install_login(app: FastAPI, settings: Settings) -> dict[str, Any]:
    """Return the arguments of `web.docs.install`; none without OIDC_DOCS_CLIENT_ID."""
    if not settings.oidc_docs_client_id:
        return {}
    describe_scheme(app, settings.oidc_issuer)
    install_redirect(app)
    url = urlsplit(settings.oidc_issuer)
    return {
        # With https, the provider may have its token endpoint on another host.
        "connect": f"'self' {'https:' if url.scheme == 'https' else f'http://{url.netloc}'}",
        "oauth": {
            "clientId": settings.oidc_docs_client_id,
            "scopes": settings.oidc_docs_scopes,
            "usePkceWithAuthorizationCodeGrant": True,
            "additionalQueryStringParams": {"audience": settings.oidc_audience},  # for Auth0
        },
    }


def describe_scheme(app: FastAPI, issuer: str) -> None:
    """Name the provider in the OpenAPI document: its address is a setting."""
    describe = app.openapi

    def openapi() -> dict[str, Any]:
        document = describe()
        schemes = document.get("components", {}).get("securitySchemes", {})
        if "oidc" in schemes:
            url = issuer.rstrip("/") + DISCOVERY
            schemes["oidc"] = {"type": "openIdConnect", "openIdConnectUrl": url}
        return document

    app.openapi = openapi  # type: ignore[method-assign] # FastAPI's documented way


def install_redirect(app: FastAPI) -> None:
    """Serve the page where the provider sends the browser. It gives the code to /docs."""
    body = bytes(get_swagger_ui_oauth2_redirect_html().body)
    script = body.split(b"<script>")[1].split(b"</script>")[0]
    digest = b64encode(sha256(script).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; frame-ancestors 'none'"

    @app.get("/oauth2-redirect.html", include_in_schema=False)
    async def redirect() -> HTMLResponse:
        return HTMLResponse(body, headers={"Content-Security-Policy": policy})
