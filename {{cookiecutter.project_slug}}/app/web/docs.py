"""/docs without a CDN: the files of Swagger UI come from the package fastapi-swagger."""

from base64 import b64encode
from hashlib import sha256

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles


def install(app: FastAPI, connect: str = "'self'", oauth: dict[str, object] | None = None) -> None:
    """Serve the page and its files. Their URLs are relative, so they work under a path prefix."""
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title=app.title,
        swagger_js_url="docs/assets/swagger-ui-bundle.js",
        swagger_css_url="docs/assets/swagger-ui.css",
        swagger_favicon_url="docs/assets/favicon-32x32.png",
        init_oauth=oauth,
    )
    script = bytes(page.body).split(b"<script>")[1].split(b"</script>")[0]
    digest = b64encode(sha256(script).digest()).decode()  # the only inline script that may run
    policy = (
        f"default-src 'none'; script-src 'self' 'sha256-{digest}'; style-src 'self'; "
        f"img-src 'self' data:; connect-src {connect}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        # A new response for each request: middleware may change its headers.
        return HTMLResponse(page.body, headers={"Content-Security-Policy": policy})

    app.mount("/docs/assets", StaticFiles(packages=[("fastapi_swagger", "resources")]))
