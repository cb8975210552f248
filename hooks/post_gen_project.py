"""Finish what `alembic init` leaves undone, write `.env`, and verify the result."""

from __future__ import annotations

import ast
import os
import re
import secrets
import shlex
import sys
from pathlib import Path

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
PLACEHOLDER_PASSWORD = "change-me"  # noqa: S105 - the example's
PLACEHOLDER_URL = "driver://user:pass@localhost/dbname"
INI_VALUES = {
    "script_location": "%(here)s/alembic",
    "prepend_sys_path": "%(here)s",
    "path_separator": "os",
}
# What `alembic init` writes, which depends on the directory where a command is run.
STOCK_VALUES = {"script_location": {"alembic"}, "prepend_sys_path": {"."}, "path_separator": set()}


NEXT_STEPS = """
{name} is ready. Next:

  cd {directory}
  uv run dev       serve it on an embedded PostgreSQL, http://localhost:8000/docs
  uv run pytest    run its tests
"""


def main() -> int:
    root = Path.cwd()
    create_versions_directory(root)
    remove_alembic_package(root)
    complete_ini(root)
    write_env(root)
    faults = verify(root)
    if faults:
        print("Error: the generated project is not whole:", *faults, sep="\n  ", file=sys.stderr)
        return 1
    print(NEXT_STEPS.format(name=root.name, directory=shlex.quote(str(root))))
    return 0


def create_versions_directory(root: Path) -> None:
    """Alembic writes revisions to a directory that git, which keeps no empty one, may lose."""
    (root / "alembic" / "versions").mkdir(parents=True, exist_ok=True)


def remove_alembic_package(root: Path) -> None:
    """`alembic init --package` makes the folder a package, which hides the library."""
    init = root / "alembic" / "__init__.py"
    if init.is_file() and not init.read_text(encoding="utf-8").strip():
        init.unlink()


def complete_ini(root: Path) -> None:
    """Blank the placeholder URL; make the paths independent of the current directory."""
    path = root / "alembic.ini"
    if not path.is_file():
        return
    before = after = path.read_text(encoding="utf-8")
    if ini_value(after, "sqlalchemy.url") == PLACEHOLDER_URL:
        after = set_ini_value(after, "sqlalchemy.url", "")
    for key, value in INI_VALUES.items():
        if ini_value(after, key) in {None, ""} | STOCK_VALUES[key]:
            after = set_ini_value(after, key, value)
    if after != before:
        path.write_text(after, encoding="utf-8")


def ini_value(text: str, key: str) -> str | None:
    """The value of `key` in `alembic.ini`, None where it is missing or commented out."""
    found = re.search(rf"^{re.escape(key)}[ \t]*=[ \t]*(.*?)[ \t]*$", text, re.MULTILINE)
    return found and found.group(1)


def set_ini_value(text: str, key: str, value: str) -> str:
    """Replace the line of `key`, or add one to the section `[alembic]`; comments stay."""
    line = f"{key} = {value}".rstrip()
    if ini_value(text, key) is None:
        return text.replace("[alembic]\n", f"[alembic]\n{line}\n", 1)
    return re.sub(rf"^{re.escape(key)}[ \t]*=.*$", lambda _: line, text, count=1, flags=re.M)


def write_env(root: Path) -> None:
    """Copy `.env.example` with a random password, for the owner's eyes, unless there is one."""
    example = root / ".env.example"
    if not example.is_file():
        return
    text = example.read_text(encoding="utf-8")
    try:
        descriptor = os.open(root / ".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text.replace(PLACEHOLDER_PASSWORD, secrets.token_urlsafe(24)))


def verify(root: Path) -> list[str]:
    """Every fault of the files that the template owns, one line each."""
    faults = [f"{name}: missing" for name in OWNED if not (root / name).is_file()]
    texts = {
        name: (root / name).read_text(encoding="utf-8", errors="replace")
        for name in OWNED
        if (root / name).is_file()
    }
    for name, text in texts.items():
        faults += verify_text(name, text)
    faults += verify_environment(texts.get(".env.example", ""))
    faults += verify_ini(texts.get("alembic.ini", ""))
    faults += verify_env_py(texts.get("alembic/env.py", ""))
    return faults + verify_import(root)


def verify_text(name: str, text: str) -> list[str]:
    if re.search(r"\{[#%{][^\n]*cookiecutter", text):
        return [f"{name}: a placeholder of cookiecutter was not filled in"]
    if name.endswith(".py") and parse(text) is None:
        return [f"{name}: not valid Python"]
    return []


def verify_environment(text: str) -> list[str]:
    """`.env.example` shows both URLs, each with its own driver."""
    drivers = {
        "DATABASE_URL": "postgresql+asyncpg://",
        "DATABASE_URL_SYNC": "postgresql+psycopg://",
    }
    return [
        f".env.example: {name} must start with {driver}"
        for name, driver in drivers.items()
        if not (ini_value(text, name) or "").startswith(driver)
    ]


def verify_ini(text: str) -> list[str]:
    faults = [
        f"alembic.ini: {key} must be {value}, which works from any directory"
        for key, value in INI_VALUES.items()
        if ini_value(text, key) != value
    ]
    if ini_value(text, "sqlalchemy.url") == PLACEHOLDER_URL:
        faults.append("alembic.ini: sqlalchemy.url is a placeholder; leave it blank")
    return faults


def verify_env_py(text: str) -> list[str]:
    """`alembic/env.py` connects as `app/migrations.py` says and imports the models."""
    tree = parse(text) or ast.Module([], [])
    nodes = list(ast.walk(tree))
    imports = {
        (node.module, alias.name)
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    faults = []
    if ("app.models", "*") not in imports:
        faults.append("alembic/env.py: must import the models: from app.models import *")
    if ("app.migrations", "connect") not in imports or "connect" not in calls:
        faults.append(
            "alembic/env.py: must take DATABASE_URL_SYNC: from app.migrations import connect"
        )
    return faults


def verify_import(root: Path) -> list[str]:
    """Nothing is found by `import alembic` before the library."""
    return [
        f"{name}: hides the library alembic; rename or remove it"
        for name in ("alembic/__init__.py", "alembic.py")
        if (root / name).exists()
    ]


def parse(text: str) -> ast.Module | None:
    """The syntax tree, None if there is none."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


if __name__ == "__main__":
    sys.exit(main())
