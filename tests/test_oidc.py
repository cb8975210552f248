"""Projects with an identity provider: their tests, their page, and a login in a browser."""

import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import readmes
from browser import browse
from conftest import TEMPLATE, Project, bake_with, short_directory
from load import Stage, stage
from pytest_cookies.plugin import Cookies
from servers import free_port
from serving import serve, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

AUDIENCE, CLIENT, SCOPES = "my-api", "my-api-docs", "openid items:read items:write"
VERIFIER = "v" * 43


@pytest.fixture(scope="module")
def project(cookies_session: Cookies) -> Project:
    """A project with a provider, installed; only for commands that leave no trace."""
    project = bake_with(cookies_session, {"auth": "oidc"}).copy(short_directory())
    project.run("uv", "sync", "--quiet")
    return project


def add_code_of_the_page(project: Project) -> None:
    imports = "from access_tokens import SignIn\nfrom httpx import AsyncClient\n\n\n"
    readmes.add_code_of_auth(project, imports)


def test_tests_pass_with_the_code_of_the_page(project: Project) -> None:
    changed = project.copy(short_directory())
    changed.add_tests("machinery", "oidc")
    add_code_of_the_page(changed)
    tests = ("tests/test_page.py", "tests/test_oidc.py", "tests/oidc")
    assert " passed" in changed.uv("pytest", "-q", "-n", "2", *tests)


@pytest.mark.parametrize("resolution", ["highest", "lowest-direct"])
@pytest.mark.parametrize("jobs", [False, True])
def test_every_test_passes(cookies_session: Cookies, jobs: bool, resolution: str) -> None:
    """Those that the owner keeps, and those of the template."""
    changed = bake_with(cookies_session, {"auth": "oidc", "jobs": jobs}).copy(short_directory())
    changed.add_tests("machinery", "oidc")
    env = {"UV_RESOLUTION": resolution}
    ignored = "--ignore=tests/machinery"
    assert " passed" in changed.uv("pytest", "-q", "-n", "2", ignored, env=env)
    for command in (
        ("ruff check", "ruff format --check", "mypy") if "lowest" not in resolution else ()
    ):
        changed.uv(*command.split(), env=env)


# A served project, and a provider.


@contextmanager
def provide() -> Iterator[str]:
    """Run a provider. Yields its issuer."""
    port = free_port()
    command = [sys.executable, str(TEMPLATE / "tests/provider.py"), str(port), AUDIENCE]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            issuer = f"http://127.0.0.1:{port}"
            wait_until(lambda: answers(issuer))
            yield issuer
        finally:
            process.terminate()


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/.well-known/openid-configuration").is_success
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def served(project: Project) -> Iterator[Stage]:
    with stage(project.path, short_directory()) as database:
        yield database


def settings(issuer: str) -> dict[str, str]:
    return {"OIDC_ISSUER": issuer, "OIDC_AUDIENCE": AUDIENCE}


def log_in(issuer: str, scope: str = SCOPES) -> dict[str, str]:
    """Return what the provider answers to a login by authorization code with PKCE."""
    challenge = urlsafe_b64encode(sha256(VERIFIER.encode()).digest()).decode().rstrip("=")
    client = {"client_id": CLIENT, "redirect_uri": "http://127.0.0.1:1/"}
    query = {"response_type": "code", "scope": scope, "state": "1", "code_challenge": challenge}
    query |= {"code_challenge_method": "S256", **client}
    response = httpx.post(f"{issuer}/oauth2/authorize", params=query, data={"sub": "hunter2"})
    (code,) = parse_qs(urlsplit(response.headers["location"]).query)["code"]
    form = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER}
    tokens: dict[str, str] = httpx.post(f"{issuer}/oauth2/token", data=client | form).json()
    return tokens


def send(url: str, method: str, token: str) -> int:
    header = {"authorization": f"Bearer {token}"}
    body = {"name": token[-9:]} if method == "POST" else None
    return httpx.request(method, f"{url}/items", headers=header, json=body).status_code


def test_tokens_of_a_provider_are_accepted_and_not_logged(served: Stage) -> None:
    """Access tokens with a scope, and no ID tokens, also after the provider has gone."""
    with ExitStack() as stack:
        with provide() as issuer:
            tokens, reading = log_in(issuer), log_in(issuer, "openid items:read")
            good, token_of_id = tokens["access_token"], tokens["id_token"]
            options = settings(issuer) | {"UVICORN_LOG_LEVEL": "debug"}
            server = stack.enter_context(serve(served.project, env=served.urls | options))
            assert [send(server.url, method, good) for method in ("GET", "POST")] == [200, 201]
            assert send(server.url, "POST", reading["access_token"]) == 403
            assert send(server.url, "GET", token_of_id) == 401
        assert send(server.url, "GET", good) == 200
        assert send(server.url, "GET", token_of_id) == 401
        with serve(served.project, env=served.urls | options) as other:
            assert send(other.url, "GET", good) == 503
    log = server.log.read_text() + other.log.read_text()
    assert "A token was refused: InvalidClaimError aud" in log
    assert f"The identity provider {issuer} cannot be used: " in log
    for secret in (
        "hunter2",
        *(part for token in (good, token_of_id) for part in token.split(".")),
    ):
        assert secret not in log


def text(selector: str) -> str:
    return f"document.querySelector({selector!r})?.textContent"


def test_docs_log_in_in_a_browser(served: Stage, tmp_path: Path) -> None:
    """By authorization code with PKCE, on which the provider insists. Then the API answers."""
    docs = {"OIDC_DOCS_CLIENT_ID": CLIENT, "OIDC_DOCS_SCOPES": SCOPES}
    with (
        provide() as issuer,
        serve(served.project, env=served.urls | settings(issuer) | docs) as server,
        browse(tmp_path) as browser,
    ):
        page = browser.open(f"{server.url}/docs#/items/items_read_page")
        browser.wait(page, "ui.authSelectors.definitionsToAuthorize().size == 1")
        browser.click(page, ".btn.authorize")
        browser.click(page, ".auth-container .btn.authorize")
        login = browser.popup(f"{issuer}/oauth2/authorize")
        browser.wait(login, "!!document.querySelector('input[name=sub]')")
        browser.run(login, "document.querySelector('input[name=sub]').value = 'ann'")
        browser.click(login, "form button")
        browser.wait(page, f"{text('.auth-btn-wrapper .btn')} === 'Logout'")
        browser.click(page, ".btn-done")
        browser.click(page, ".try-out__btn")
        browser.click(page, ".btn.execute")
        status = text(".live-responses-table tbody .response-col_status")
        assert browser.wait(page, status).startswith("200")
    assert [line for line in browser.console if "Content Security Policy" in line] == []
