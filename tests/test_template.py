"""What is generated, file by file."""

import json
import re
import shutil
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import post_gen_project
import pre_gen_project
import pytest
from conftest import (
    PROJECT_DIRECTORY,
    TEMPLATE,
    Bake,
    Project,
    choices,
    commit,
    faults,
    findings,
    interpreters,
    matrix,
    optional_files,
    tracked,
    word,
)
from cookiecutter.environment import StrictEnvironment

JINJA = re.compile(r"(?<!\$)\{\{|\{%|\{#")  # `${{ }}` is of a workflow, which is copied


def files(directory: Path) -> set[str]:
    return {
        path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()
    }


# The files that come with some answers only: what the hook's table says, in other words.
ONLY: dict[str, tuple[tuple[str, object], ...]] = {
    r"app/auth/tasks\.py|tests/mail_fixtures\.py": (("auth", "accounts"), ("jobs", True)),
    r"app/jobs/telemetry\.py": (("jobs", True), ("telemetry", True)),
    r"docs/auth\.md": (("auth", "accounts"), ("auth", "oidc")),
    r"app/oidc/.*|tests/(access_tokens|test_oidc)\.py": (("auth", "oidc"),),
    r"app/auth/.*|.*/account\.py|.*_accounts_\w+\.py|.*/test_auth\.py": (("auth", "accounts"),),
    r"app/jobs/.*|app/items/tasks\.py|.*_jobs_\w+\.py|docs/jobs\.md": (("jobs", True),),
    r"tests/(job_fixtures|test_items_tasks|test_jobs)\.py": (("jobs", True),),
    r"app/web/telemetry\.py|deploy/grafana\.json|docs/telemetry\.md": (("telemetry", True),),
    r"tests/test_telemetry\.py": (("telemetry", True),),
    r"\.dockerignore|Dockerfile|compose\.yaml": (("docker", True),),
    r"deploy/kubernetes/worker\.yaml": (("jobs", True), ("kubernetes", True)),
    r"deploy/kubernetes/.*|docs/(kubernetes|scale)\.md|.*/(test_)?read_replica\.py": (
        ("kubernetes", True),
    ),
    r"\.github/.*": (("ci", "github"),),
    r"\.gitlab-ci\.yml": (("ci", "gitlab"),),
    r"\.pre-commit-config\.yaml": (("ci", "github"), ("ci", "gitlab")),
}


def comes(name: str, answers: dict[str, object]) -> bool:
    """Whether a file of the template comes with these answers."""
    needs = next((needs for rule, needs in ONLY.items() if re.fullmatch(rule, name)), None)
    if needs is None:  # of every project, or of an option of a fork
        table = post_gen_project.OPTIONAL.items()
        needs = tuple(choice for choice, names in table if name in names.split())
    return all((question, answers[question]) in needs for question, _ in needs)


@pytest.mark.parametrize("answers", matrix(), ids=str)
def test_each_choice_gives_exactly_its_files_and_env(
    bake: Bake, answers: dict[str, object]
) -> None:
    project = bake(**answers)
    expected = {name for name in tracked(PROJECT_DIRECTORY) if comes(name, answers)}
    revisions = expected & post_gen_project.REVISIONS
    merges = {name for name in files(project.path) if "_merge_options_" in name}
    assert files(project.path) - merges == expected | {".env"}
    assert len(merges) == (len(revisions) > 2)
    assert faults(project.path) == []
    assert findings(project.path) == []
    texts = {name: (project.path / name).read_text() for name in files(project.path)}
    assert [name for name, text in texts.items() if JINJA.search(text)] == []
    assert [name for name, text in texts.items() if "# option:" in text] == []


def test_nothing_of_an_option_comes_without_it(bake: Bake) -> None:
    """No file, and no line."""
    off = dict.fromkeys(("jobs", "telemetry", "docker", "kubernetes"), False)
    project = bake(auth="none", ci="none", **off)
    names = {path.name for path in project.path.rglob("*")} | {
        line
        for name in post_gen_project.MARKED
        if (project.path / name).exists()
        for line in (project.path / name).read_text().splitlines()
    }
    brought = re.compile(
        "app.auth|_accounts_|pwdlib|MAIL_|app.jobs|pgqueuer|WORKER_IN|oidc|joserfc|\\bOTEL_"
        "|web.telemetry|replica_r|URL_READ|kubernetes",
        re.IGNORECASE,
    )
    assert [name for name in names if brought.search(name)] == []
    tools = re.compile("docker|compose|github|gitlab|pre-commit", re.IGNORECASE)
    assert [path for path in project.path.rglob("*") if tools.search(path.name)] == []


# How many lines of each file are marked, by question.
MARKS = {
    "auth": {
        ".env.example": 15,
        "AGENTS.md": 6,
        "README.md": 5,
        "app/config.py": 11,
        "app/main.py": 11,
        "compose.yaml": 15,
        "deploy/kubernetes/deployment.yaml": 1,
        "deploy/kubernetes/kustomization.yaml": 3,
        "deploy/kubernetes/worker.yaml": 1,
        "docs/deploy.md": 8,
        "docs/kubernetes.md": 1,
        "pyproject.toml": 5,
        "tests/conftest.py": 2,
        "tests/test_items.py": 3,
    },
    "jobs": {
        ".env.example": 2,
        "AGENTS.md": 1,
        "README.md": 1,
        "app/auth/dependencies.py": 6,
        "app/config.py": 1,
        "app/main.py": 2,
        "compose.yaml": 2,
        "deploy/kubernetes/kustomization.yaml": 1,
        "dev/postgres.py": 1,
        "docs/auth.md": 8,
        "docs/deploy.md": 1,
        "docs/scale.md": 5,
        "pyproject.toml": 2,
        "tests/conftest.py": 1,
        "tests/signing_in.py": 1,
    },
    "telemetry": {
        "README.md": 1,
        "app/jobs/worker.py": 4,
        "app/main.py": 3,
        "compose.yaml": 8,
        "deploy/kubernetes/kustomization.yaml": 1,
        "docs/deploy.md": 3,
        "pyproject.toml": 3,
    },
    "docker": {
        ".github/dependabot.yml": 1,
    },
    "kubernetes": {
        ".env.example": 2,
        "README.md": 1,
        "app/config.py": 2,
        "app/main.py": 2,
        "compose.yaml": 1,
        "docs/deploy.md": 1,
    },
}


def test_marks_stand_where_the_hook_looks_for_them() -> None:
    """Each one names a question, and answers that bring something or their opposite."""
    counts: dict[str, Counter[str]] = {question: Counter() for question in choices()}
    for name in tracked(PROJECT_DIRECTORY):
        for line in (PROJECT_DIRECTORY / name).read_text().split("\n"):
            if "# option" in line:
                mark = post_gen_project.MARK.search(line)
                assert mark, f"{name}: {line}"
                assert name in post_gen_project.MARKED, f"{name}: {line}"
                known = {word(answer) for answer in choices()[mark[1]]}
                assert set(mark[2].split(",")) < known, f"{name}: {line}"
                counts[mark[1]][name] += 1
    assert {question: dict(counts[question]) for question in MARKS} == MARKS


def test_every_choice_brings_files_and_no_files_come_without_one() -> None:
    assert {option for option, _ in post_gen_project.OPTIONAL} == choices().keys()
    for option, value in post_gen_project.OPTIONAL:
        assert value in choices()[option]


def test_the_hooks_know_exactly_the_files_of_the_template() -> None:
    assert set(pre_gen_project.FILES) == tracked(PROJECT_DIRECTORY)
    named = [name for line in pre_gen_project.LAYOUT.splitlines() for name in line.split()[1:]]
    assert len(pre_gen_project.FILES) == len(named)
    assert {*optional_files(), post_gen_project.FIRST_REVISION} <= set(pre_gen_project.FILES)
    assert set(post_gen_project.MARKED) <= set(pre_gen_project.FILES)


def test_both_hooks_know_the_modules_of_an_option() -> None:
    """The first one lets the owner have a module of their name if they are not chosen."""
    known = {f"{q}={a}": names.split() for (q, a), names in post_gen_project.OPTIONAL.items()}
    for name in (name for name in pre_gen_project.FILES if name.endswith(".py")):
        listed = [answer for answer, names in known.items() if name in names]
        assert listed == pre_gen_project.FILES[name].split()
    for answer in filter(None, pre_gen_project.FILES.values()):
        question = answer.split("=")[0]
        assert f"{question}={{{{ cookiecutter.{question} }}}}" in pre_gen_project.OPTIONS


OLDEST = interpreters(minors=[8])


@pytest.mark.skipif(not OLDEST, reason="no Python 3.8")
def test_the_hooks_run_on_the_oldest_python_that_cookiecutter_supports(tmp_path: Path) -> None:
    """Over files that were there before, where all of their code runs."""
    project = tmp_path / "my-api"
    first = project / post_gen_project.FIRST_REVISION
    first.parent.mkdir(parents=True)
    first.with_name("mine.py").write_text("revision = 'aaa'\ndown_revision = None\n")
    commit(project)
    answers: dict[str, object] = {"project_name": "A", "project_slug": "a", "description": "A"}
    answers |= {name: values[-1] for name, values in choices().items()}
    for name in ("pre_gen_project.py", "post_gen_project.py"):
        environment = StrictEnvironment(context={"cookiecutter": answers})
        source = environment.from_string((TEMPLATE / "hooks" / name).read_text())
        (tmp_path / name).write_text(source.render(cookiecutter=answers))
        if name.startswith("post"):
            shutil.copytree(PROJECT_DIRECTORY, project, dirs_exist_ok=True)
        subprocess.run([OLDEST[0], str(tmp_path / name)], cwd=project, check=True)
    assert post_gen_project.read_history(project)[first] == ("1f0c5e7a9b3d", {"aaa"})


def test_files_that_people_read_as_code_hold_no_jinja() -> None:
    code = {
        name
        for name in tracked(PROJECT_DIRECTORY)
        if name.endswith((".py", ".sql", ".ini")) or name.startswith("alembic/")
    }
    assert len(code) > 20
    assert [name for name in code if JINJA.search((PROJECT_DIRECTORY / name).read_text())] == []
    for name in code:
        if name.endswith(".py"):
            compile((PROJECT_DIRECTORY / name).read_text(), name, "exec")


TEXTS = [
    "Plain",
    """It's "quoted" \\ backslashed \\n""",
    "100 % $HOME ${x} #1 {single} [brackets] <tags> & more",
    "Ünïcödé, 日本語, עברית, 🎉",
    ": - ! @ ` | > ' \"",
]


@pytest.mark.parametrize("text", TEXTS)
def test_free_text_comes_through_unchanged(bake: Bake, text: str) -> None:
    project = bake(project_name=text, project_slug="my-api", description=text)
    about = tomllib.loads((project.path / "pyproject.toml").read_text("utf-8"))["project"]
    assert about["description"] == text
    readme = (project.path / "README.md").read_text("utf-8").splitlines()
    assert readme[0] == f"# {text}"
    assert readme[2] == text


def test_the_slug_names_directory_distribution_and_database(bake: Bake) -> None:
    project = bake(project_name="Billing Service 2.0")
    assert project.path.name == "billing-service-2-0"
    about = tomllib.loads((project.path / "pyproject.toml").read_text("utf-8"))["project"]
    assert about["name"] == "billing-service-2-0"
    assert "@localhost:5432/billing_service_2_0\n" in (project.path / ".env.example").read_text()


def test_every_question_has_words_for_people() -> None:
    questions = json.loads((TEMPLATE / "cookiecutter.json").read_text())
    asked = {name for name in questions if not name.startswith("_")}
    assert questions["__prompts__"].keys() == asked


def test_a_misspelt_answer_fails_the_bake_of_a_test(bake: Bake) -> None:
    with pytest.raises(AssertionError, match="projekt_name"):
        bake(projekt_name="My API")


def test_no_dependency_is_allowed_as_the_name_of_the_project(installed: Project) -> None:
    """A project of that name would depend on itself, indirectly too."""
    lock = tomllib.loads((installed.path / "uv.lock").read_text())
    names = {package["name"] for package in lock["package"]} - {"my-api"}
    build = tomllib.loads((installed.path / "pyproject.toml").read_text())["build-system"]
    names |= {re.split("[<>=]", name)[0].replace("_", "-") for name in build["requires"]}
    assert names <= set(pre_gen_project.DEPENDENCIES)


def test_the_lock_file_of_a_project_is_not_ignored(baked: Project, tmp_path: Path) -> None:
    project = baked.copy(tmp_path)
    (project.path / "uv.lock").touch()
    project.run("git", "init", "--quiet")
    status = project.run("git", "status", "--short", "--untracked-files=all").stdout
    assert "uv.lock" in status
    assert ".env\n" not in status
