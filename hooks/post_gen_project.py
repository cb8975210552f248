"""Drop what was not chosen, finish `alembic init`, write `.env`, verify the result."""

import os
import sys

if __name__ == "__main__" and sys.path[0] == os.path.dirname(__file__):
    del sys.path[0]  # the temporary directory: its modules are anybody's, and its list is long
import ast
import json
import re
import shlex
from pathlib import Path

ANSWERS = r""" {{ cookiecutter | tojson }} """
# The files of each answer, one by one, as a folder may hold the owner's too; others always come.
OPTIONAL: "dict[tuple[str, object], str]" = {
    ("auth", "accounts"): """ alembic/versions/2026-11-30_create_accounts_7c2e9b41d05a.py
        app/auth/__init__.py app/auth/__main__.py app/auth/dependencies.py app/auth/errors.py
        app/auth/mail.py app/auth/passwords.py app/auth/routes.py app/auth/schemas.py
        app/auth/service.py app/auth/settings.py app/auth/tasks.py app/auth/throttle.py
        app/auth/tokens.py app/models/account.py docs/auth.md tests/mail_fixtures.py
        tests/signing_in.py tests/test_auth.py """,
    ("auth", "oidc"): """ app/oidc/__init__.py app/oidc/dependencies.py app/oidc/docs.py
        app/oidc/errors.py app/oidc/provider.py app/oidc/settings.py app/oidc/tokens.py
        docs/auth.md tests/access_tokens.py tests/test_oidc.py """,
    ("jobs", True): """ alembic/versions/2026-11-30_create_jobs_7b2d9c4e6f1a.py app/auth/tasks.py
        app/items/tasks.py app/jobs/__init__.py app/jobs/__main__.py app/jobs/queue.py
        app/jobs/tasks.py app/jobs/telemetry.py app/jobs/worker.py deploy/kubernetes/worker.yaml
        docs/jobs.md tests/job_fixtures.py tests/mail_fixtures.py tests/test_items_tasks.py
        tests/test_jobs.py """,
    ("telemetry", True): """ app/jobs/telemetry.py app/web/telemetry.py deploy/grafana.json
        docs/telemetry.md tests/test_telemetry.py """,
    ("docker", True): ".dockerignore Dockerfile compose.yaml",
    ("kubernetes", True): """ app/read_replica.py docs/scale.md deploy/kubernetes/autoscaler.yaml
        deploy/kubernetes/backup.yaml deploy/kubernetes/cluster.sql deploy/kubernetes/cluster.yaml
        deploy/kubernetes/deployment.yaml deploy/kubernetes/disruption.yaml
        deploy/kubernetes/kustomization.yaml deploy/kubernetes/migrate.yaml
        deploy/kubernetes/network.yaml deploy/kubernetes/pooler.yaml deploy/kubernetes/service.yaml
        deploy/kubernetes/worker.yaml docs/kubernetes.md tests/test_read_replica.py """,
    ("ci", "github"): ".github/dependabot.yml .github/workflows/ci.yml .pre-commit-config.yaml",
    ("ci", "gitlab"): ".gitlab-ci.yml .pre-commit-config.yaml",
}
# The files with marks: a line that ends so is there for these answers only.
MARKED = """ .env.example .github/dependabot.yml .github/workflows/ci.yml .gitlab-ci.yml AGENTS.md
    README.md app/config.py app/auth/dependencies.py app/jobs/worker.py app/main.py compose.yaml
    deploy/kubernetes/deployment.yaml deploy/kubernetes/kustomization.yaml docs/auth.md
    deploy/kubernetes/worker.yaml dev/postgres.py docs/deploy.md docs/kubernetes.md docs/scale.md
    pyproject.toml tests/conftest.py tests/signing_in.py tests/test_items.py """.split()
MARK = re.compile(r" *# option: (\w+)=([\w,]+)(?=\r?$)")
FIRST_REVISION = "alembic/versions/2026-11-22_create_items_1f0c5e7a9b3d.py"
REVISIONS = {FIRST_REVISION, *re.findall(r"alembic/versions/\S+", " ".join(OPTIONAL.values()))}
# Files and how one of their lines must start; an owner's file may lack it if it was kept (-f -s).
STARTS = [
    (".env.example", "DATABASE_URL=postgresql+asyncpg://"),
    (".env.example", "DATABASE_URL_SYNC=postgresql+psycopg://"),
    ("alembic/env.py", "from app.models import *"),
    ("alembic/env.py", "from app.database.migrations import "),
]
INI = ["script_location = %(here)s/alembic", "prepend_sys_path = %(here)s", "path_separator = os"]
NEXT_STEPS = """
{project_name} ({description}) is ready. Next:

  cd {directory}
  uv run dev       serve it on an embedded PostgreSQL, http://localhost:8000/docs
  uv run pytest    run its tests
"""
UNDO = "To undo: cd {directory} && git restore . && git clean -f .gitignore && git clean -fd ."


def main() -> int:
    # A terminal that cannot show a name is no failure.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    root, answers = Path.cwd(), json.loads(ANSWERS)
    for question in [q for q, answer in OPTIONAL if answer is True]:  # text in cookiecutter 2.6
        answers[question] = str(answers[question]).lower() in ("true", "yes", "y", "on", "1")
    tracked, dropped = tracked_files(root), unchosen(answers)
    changed = git("diff --name-only --relative")[0].splitlines() if tracked else []
    for name in set(MARKED) - dropped - tracked.difference(changed):  # -s keeps the owner's
        apply_marks(root / name, answers)
    for name in dropped:
        drop(root / name, root)
    owned = sorted(tracked & {*REVISIONS, *dropped})  # the owner's, not to be changed
    failure = owned and git(f"restore -- {' '.join(owned)}")[1]
    faults = [f"{', '.join(owned)}: not restored, {failure}"] if failure else []
    new = REVISIONS - tracked - dropped
    modules = {name for name in " ".join(OPTIONAL.values()).split() if name[:4] == "app/"}
    if "app/main.py" in tracked.difference(changed) and modules - tracked - dropped:
        faults.append("app/main.py: it was kept and lacks the new option; generate without -s")
    join_history(root, new)
    remove_alembic_package(root)
    faults += verify(root)
    directory = shlex.quote(root.as_posix())  # cmd.exe takes slashes, but no quotes
    if not faults:
        write_env(root)
        print(NEXT_STEPS.format(directory=directory, **answers))
    for fault in faults:
        print(f"Error: {fault}", file=sys.stderr)
    if tracked:
        print(UNDO.format(directory=directory), file=sys.stderr if faults else sys.stdout)
    return 1 if faults else 0


def tracked_files(root: Path) -> "set[str]":
    """The files that were here before, all of them in git; none in a new directory."""
    if not any(os.path.exists(folder / ".git") for folder in (root, *root.parents)):
        return set()
    return set(git("ls-files")[0].splitlines())


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


def unchosen(answers: "dict[str, object]") -> "set[str]":
    """The files of other answers than these. One that two questions list needs both."""
    chosen = {q: OPTIONAL.get((q, answers[q]), "").split() for q, _ in OPTIONAL}
    optional = [(q, name) for (q, _), names in OPTIONAL.items() for name in names.split()]
    return {name for q, name in optional if name not in chosen[q]}


def apply_marks(path: Path, answers: "dict[str, object]") -> None:
    """Drop the lines for other answers, each with the deeper block below it; unmark the rest."""
    words = {name: {"True": "yes", "False": "no"}.get(str(a), a) for name, a in answers.items()}
    free_text = (f"# {answers['project_name']}", answers["description"])
    lines: list[str] = []
    dropped = -1  # the indentation of the last line, if it was dropped
    for line in path.read_bytes().decode("utf-8", "surrogateescape").split("\n"):
        depth = len(line) - len(line.lstrip())
        mark = None if line in free_text else MARK.search(line)
        if dropped >= 0 and (depth > dropped if line.strip() else not "".join(lines[-1:]).strip()):
            continue  # it is of the block, or a second blank line
        if mark and words[mark[1]] not in mark[2].split(","):
            dropped = depth
        else:
            dropped = -1 if line.strip() else dropped
            lines.append(MARK.sub("", line) if mark else line)
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))


def drop(path: Path, root: Path) -> None:
    """Remove a file, and the folders that are then empty."""
    path.unlink()
    while path.parent != root and not any(path.parent.iterdir()):
        path = path.parent
        path.rmdir()


def remove_alembic_package(root: Path) -> None:
    """`alembic init --package` makes the folder a package, which hides the library."""
    init = root / "alembic" / "__init__.py"
    if init.is_file() and not init.read_bytes().strip():
        init.unlink()


def join_history(root: Path, new: "set[str]") -> None:
    """Join the template's new revisions with the owner's history, for one base and one head."""
    history = read_history(root)
    ours = {root / name: history.pop(root / name) for name in sorted(new)}
    theirs = {name for name, _ in history.values()}
    for path in [path for path, (name, _) in ours.items() if name in theirs]:
        path.unlink()  # the owner has it in a file of another name
        del ours[path]
    first, heads = root / FIRST_REVISION, find_ends(history)[1]
    if heads and first in ours and not any(ours[first][0] in down for _, down in history.values()):
        first.write_bytes(follow(read(first), heads).encode())
    heads = find_ends(read_history(root))[1]
    if len(heads) > 1 and len(set(heads).difference(name for name, _ in ours.values())) < 2:
        write_merge(max(ours), heads)


def follow(text: str, heads: "list[str]") -> str:
    """The text of a revision that follows these."""
    down = json.dumps(heads[0] if len(heads) == 1 else heads)
    text = re.sub("^Revises:.*", lambda _: f"Revises: {', '.join(heads)}", text, flags=re.M)
    return re.sub(r"^(down_revision\b.*= ).*", lambda m: m[1] + down, text, flags=re.M)


def write_merge(like: Path, heads: "list[str]") -> None:
    """Write what `alembic merge` would, with the head of a revision of the template's."""
    from hashlib import sha256  # slow, and seldom needed

    name = sha256(" ".join(heads).encode()).hexdigest()[:12]
    text = read(like).split("def upgrade")[0].replace(like.stem[-12:], name)
    text = re.sub('^"""[^\n]*', '"""merge options', follow(text, heads))
    text += "def upgrade() -> None:\n    pass\n\n\ndef downgrade() -> None:\n    pass\n"
    like.with_name(f"{like.name[:10]}_merge_options_{name}.py").write_bytes(text.encode())


def read_history(root: Path) -> "dict[Path, tuple[str, set[str]]]":
    """Each revision's name and the names of those that it follows, by file."""
    revisions = {path: read_revision(path) for path in sorted(root.glob("alembic/versions/*.py"))}
    return {path: revision for path, revision in revisions.items() if revision}


def read_revision(path: Path) -> "tuple[str, set[str]] | None":
    """A file's `revision` and `down_revision`, not run; None if there are no such literals."""
    values: dict[str, ast.AST] = {}
    try:
        for node in ast.parse(path.read_bytes()).body:
            for target in getattr(node, "targets", [getattr(node, "target", None)]):
                if isinstance(target, ast.Name):
                    values[target.id] = getattr(node, "value", None) or node
        name, down = (ast.literal_eval(values[key]) for key in ("revision", "down_revision"))
        return str(name), {down} if isinstance(down, str) else set(down or ())
    except (KeyError, SyntaxError, TypeError, ValueError):
        return None


def find_ends(history: "dict[Path, tuple[str, set[str]]]") -> "tuple[list[str], list[str]]":
    """The bases, which follow no revision, and the heads, which no revision follows."""
    bases = sorted(name for name, down in history.values() if not down)
    followed = {name for _, down in history.values() for name in down}
    return bases, sorted(name for name, _ in history.values() if name not in followed)


def write_env(root: Path) -> None:
    """Copy `.env.example` with random passwords, for the owner alone, unless there is a `.env`."""
    if not os.path.lexists(root / ".env"):
        text = re.sub("change-me", lambda _: os.urandom(24).hex(), read(root / ".env.example"))
        descriptor = os.open(root / ".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)


def verify(root: Path) -> "list[str]":
    """Every fault of the two URLs, of Alembic's files and of the models, one line each."""
    faults = [
        f"{name}: needs a line that starts with {start}"
        for name, start in STARTS
        if not re.search(f"^{re.escape(start)}", read(root / name), re.MULTILINE)
    ]
    ini = re.sub(" *= *", " = ", read(root / "alembic.ini")).splitlines()
    faults += [f"alembic.ini: needs the line {line}" for line in INI if line not in ini]
    if "sqlalchemy.url = driver://user:pass@localhost/dbname" in ini:
        faults.append("alembic.ini: sqlalchemy.url is a placeholder; leave it blank")
    hiding = [name for name in ("alembic.py", "alembic/__init__.py") if (root / name).exists()]
    faults += [f"{name}: it hides the library alembic; rename or remove it" for name in hiding]
    return faults + verify_models(root) + verify_history(root)


def verify_models(root: Path) -> "list[str]":
    """`app/models/__init__.py` names every module beside it, or imports all in a loop."""
    package = root / "app" / "models"
    code = re.sub(r'"""[^"]*"""|#.*', "", read(package / "__init__.py"))
    return [
        f"app/models/__init__.py: must import {path.stem}, or Alembic misses its tables"
        for path in sorted(package.glob("[!_]*.py"))
        if not re.search(rf"import_module\(|\b{path.stem}\b", code)
    ]


def verify_history(root: Path) -> "list[str]":
    """Every revision can be read, and all lead from one base to one head."""
    history = read_history(root)
    old = "" if sys.version_info >= (3, 11) else ", or needs a newer Python to run cookiecutter"
    return [
        f"alembic/versions/{path.name}: revision or down_revision is not a literal{old}"
        for path in sorted(root.glob("alembic/versions/*.py"))
        if path not in history and path.name != "__init__.py"
    ] or [
        f"alembic/versions: needs one {kind}, has {', '.join(names) or 'none'}"
        for kind, names in zip(("base", "head"), find_ends(history))
        if len(names) != 1
    ]


def read(path: Path) -> str:
    """The text of a file; bytes that are not UTF-8 come through unchanged."""
    return path.read_text(encoding="utf-8", errors="surrogateescape")


if __name__ == "__main__":
    sys.exit(main())
