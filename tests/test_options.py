"""The guide "Add an option", performed on a copy of the template for two options."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import post_gen_project
import pytest
import readmes
from conftest import (
    PROJECT_DIRECTORY,
    Bake,
    Project,
    commit,
    copy_template,
    faults,
    matrix,
    short_directory,
    user_environment,
)

GUIDE = readmes.sections(readmes.CONTRIBUTING)["Add an option"]
REVISION = "5b1d0c7e9f2a"
NAMES = ("motto", "slogan")
WITH_PYTHON = list(
    dict.fromkeys(
        question for (question, _), names in post_gen_project.OPTIONAL.items() if ".py" in names
    )
)


def guide(name: str, *languages: str) -> list[str]:
    """The guide's code blocks, with `name` for its `motto`."""
    text = GUIDE
    for form in (str, str.upper, str.title):
        text = text.replace(form("motto"), form(name))
    if name != "motto":
        text = text.replace(REVISION, REVISION[::-1])
    return readmes.fenced(text, *languages)


def perform(repository: Path, name: str = "motto", with_table: bool = True) -> None:
    """Follow the guide, step by step."""
    product, hooks = Project(repository / PROJECT_DIRECTORY.name), Project(repository / "hooks")
    question, prompt = map(str.strip, guide(name, "json"))
    questions = Project(repository)
    questions.replace("cookiecutter.json", '\n  "docker": ', f'\n  {question}\n  "docker": ')
    questions.replace("cookiecutter.json", '"__prompts__": {', f'"__prompts__": {{\n    {prompt}')
    json.loads((repository / "cookiecutter.json").read_text())

    *modules, row = guide(name, "python")
    for module in modules:
        comment, content = module.split("\n", 1)
        path = product.path / comment.removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    if with_table:
        table = 'OPTIONAL: "dict[tuple[str, object], str]" = {'
        hooks.replace("post_gen_project.py", table, f"{table}\n{row}")
    answer, files, lines = guide(name, "text")
    hooks.replace("pre_gen_project.py", 'OPTIONS = """', f'OPTIONS = """ {answer.strip()}')
    hooks.replace("pre_gen_project.py", 'LAYOUT = """', f'LAYOUT = """\n{files.rstrip()}')
    for group in lines.strip().split("\n\n"):
        file, before, new = group.split("\n")
        text = (product.path / file.removeprefix("# ")).read_text()
        (line,) = re.findall(rf"^[ \t]*{re.escape(before)}.*\n", text, re.MULTILINE)
        indentation = line[: len(line) - len(line.lstrip())]
        product.replace(file.removeprefix("# "), line, f"{line}{indentation}{new}\n")
    subprocess.run(["git", "add", "--all"], cwd=repository, check=True)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the template with two options more."""
    repository = copy_template(tmp_path_factory.mktemp("options") / "template")
    for name in reversed(NAMES):  # each puts its lines first
        perform(repository, name)
    return repository


def generate(repository: Path, directory: Path, *answers: str) -> Project:
    command = [sys.executable, "-m", "cookiecutter", str(repository), "--no-input", *answers]
    subprocess.run(command, cwd=directory, env=user_environment(), check=True, capture_output=True)
    return Project(directory / "my-api")


def contents(project: Project) -> dict[str, str]:
    return {
        path.relative_to(project.path).as_posix(): path.read_text()
        for path in project.path.rglob("*")
        if path.is_file() and path.name != ".env" and ".git" not in path.parts
    }


def test_option_not_chosen_leaves_no_byte(extended: Path, baked: Project, tmp_path: Path) -> None:
    assert contents(generate(extended, tmp_path)) == contents(baked)


def test_option_brings_its_files_and_lines(extended: Path, baked: Project, tmp_path: Path) -> None:
    files, default = contents(generate(extended, tmp_path, "motto=yes")), contents(baked)
    assert files.keys() - default.keys() == {
        *("app/motto/__init__.py", "app/motto/routes.py", "app/models/motto.py"),
        *("tests/test_motto.py", "alembic/versions/2027-01-31_create_mottos_5b1d0c7e9f2a.py"),
    }
    assert default.keys() <= files.keys()
    came = [
        line.strip()
        for name in default
        for line in Counter(files[name].splitlines()) - Counter(default[name].splitlines())
    ]
    shown = re.findall(r"\n(.*\S) *# option: motto", guide("motto", "text")[2])
    assert sorted(came) == sorted(shown)
    assert "# option:" not in "".join(files.values())
    assert "slogan" not in "".join(files.values()).lower()


def test_revisions_of_two_options_are_joined(extended: Path, tmp_path: Path) -> None:
    project = generate(extended, tmp_path, "motto=yes", "slogan=yes")
    (merge,) = project.path.glob("alembic/versions/2027-01-31_merge_options_*.py")
    history = post_gen_project.read_history(project.path)
    assert history[merge][1] == {REVISION, REVISION[::-1]}
    assert merge.stem.endswith(history[merge][0])
    assert faults(project.path) == []
    (tmp_path / "again").mkdir()
    again = generate(extended, tmp_path / "again", "motto=yes", "slogan=yes")
    assert contents(again) == contents(project)


def check(project: Project, *tests: str) -> None:
    """Lint, types, and the project's own tests, or these of them."""
    project.lint()
    assert " passed" in project.uv("pytest", "-q", "-n", "2", *tests)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_project_with_two_options_is_whole(extended: Path) -> None:
    project = generate(extended, short_directory(), "motto=yes", "slogan=yes")
    check(project, *(f"tests/test_{name}.py" for name in (*NAMES, "migrations", "settings")))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_project_with_every_option_is_whole(extended: Path) -> None:
    """Those of the guide and those of the template."""
    answers = ("motto=yes", "auth=accounts", "jobs=yes", "telemetry=yes", "kubernetes=yes")
    check(generate(extended, short_directory(), *answers))


def python_choices() -> list[tuple[object, ...]]:
    """Every choice of the matrix of the options that bring Python files."""
    return sorted({tuple(answers[name] for name in WITH_PYTHON) for answers in matrix()}, key=str)


@pytest.mark.slow
@pytest.mark.exhaustive
@pytest.mark.parametrize("chosen", python_choices(), ids=str)
def test_project_with_these_answers_is_whole(bake: Bake, chosen: tuple[object, ...]) -> None:
    """Pairs are linted only: the tests of one option run beside all others."""
    answers = dict(zip(WITH_PYTHON, chosen, strict=True))
    project = bake(docker=False, ci="none", **answers).copy(short_directory())
    project.lint()
    if len([answer for answer in chosen if answer not in ("none", False)]) != 2:
        assert " passed" in project.uv("pytest", "-q", "-n", "2")


def run_tests(repository: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=repository,
        env=user_environment() | {"PYTEST_DEBUG_TEMPROOT": str(repository.parent)},
        capture_output=True,
        text=True,
    )


MATRIX = ("-n", "0", "-v", "tests/test_template.py", "-k", "choice")


@pytest.mark.slow
@pytest.mark.exhaustive
def test_matrix_picks_the_option_up(template_repository: Path) -> None:
    perform(template_repository)
    result = run_tests(template_repository, *MATRIX)
    assert result.returncode == 0, result.stdout
    assert set(re.findall(r"'motto': (\w+).*PASSED", result.stdout)) == {"False", "True"}


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_step_that_is_left_out_is_noticed(template_repository: Path) -> None:
    perform(template_repository, with_table=False)
    result = run_tests(template_repository, *MATRIX)
    assert result.returncode == 1, result.stdout


@pytest.mark.parametrize("answer", ["motto=no", "motto=false"])
def test_what_was_not_chosen_is_dropped_and_the_users_own_stays(
    extended: Path, tmp_path: Path, answer: str
) -> None:
    """Also beside the option's files, and what is ignored too."""
    project = generate(extended, tmp_path, answer)
    mine = {"app/motto/routes.py": "# mine\n", "app/motto/more.py": "# mine\n"}
    (project.path / "app" / "motto").mkdir()
    for name, text in mine.items():
        (project.path / name).write_text(text)
    commit(project.path)
    (project.path / "app" / "motto" / ".env").write_text("IGNORED=1\n")
    before = contents(project)
    generate(extended, tmp_path, answer, "-f")
    assert contents(project) == before
    assert (project.path / "app" / "motto" / ".env").exists()


def test_module_of_the_owners_is_in_the_way_of_a_chosen_option_only(
    extended: Path, tmp_path: Path
) -> None:
    project = generate(extended, tmp_path)
    (project.path / "app" / "motto.py").write_text("# mine\n")
    commit(project.path)
    generate(extended, tmp_path, "-f")
    assert not (project.path / "app" / "motto").exists()
    with pytest.raises(subprocess.CalledProcessError) as error:
        generate(extended, tmp_path, "-f", "motto=True")
    assert b"app/motto.py: the project imports app/motto/__init__.py" in error.value.stderr


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.exhaustive
def test_every_fast_test_passes_with_the_option(template_repository: Path) -> None:
    perform(template_repository)
    readme = template_repository / "README.md"
    readme.write_text(readme.read_text(encoding="utf-8") + guide("motto", "json")[1])
    ignored = ["--ignore", "tests/test_options.py", "--ignore", "tests/test_size.py"]
    options = ["-q", "-m", "not slow", *ignored]  # the budgets are those of this template
    result = run_tests(template_repository, *options)
    assert result.returncode == 0, result.stdout
