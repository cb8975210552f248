"""Baked projects, and commands run in them as a user would."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import combinations, product
from pathlib import Path

import post_gen_project
import pytest
import readmes
from pytest_cookies.plugin import Cookies

TEMPLATE = Path(__file__).resolve().parents[1]
PROJECT_DIRECTORY = TEMPLATE / "{{cookiecutter.project_slug}}"

# Set by the tools that run these tests; none of it is there in a user's shell.
INHERITED = (
    *("DATABASE_", "PG", "TEST_DATABASE_"),
    *("COLUMNS", "PYTEST_", "PYTHONDONTWRITEBYTECODE", "UV_PROJECT_", "UV_RUN_", "VIRTUAL_ENV"),
)


def pytest_configure(config: pytest.Config) -> None:
    """Keep this run's files where no other run of pytest meddles.

    Each closes the directory that all of a user's runs share to other users, and under root
    PostgreSQL runs as one of them.
    """
    if not hasattr(config, "workerinput"):
        directory = tempfile.mkdtemp(prefix="template-")
        Path(directory).chmod(0o711)
        os.environ["PYTEST_DEBUG_TEMPROOT"] = directory
        config.add_cleanup(lambda: shutil.rmtree(directory, ignore_errors=True))
    # Of one worker, for all of its projects: mypy reads a library again for each new cache.
    os.environ["MYPY_CACHE_DIR"] = str(short_directory())


@pytest.hookimpl(trylast=True)  # of the tests that run
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deal the long tests out to the workers first: none of them runs alone at the end."""
    workers = getattr(config, "workerinput", {"workercount": 1})["workercount"]
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    long = [item for item in items if item.get_closest_marker("long")]
    rest = [item for item in items if not item.get_closest_marker("long")]
    # pytest-xdist gives each worker the next part of the list.
    ends = [len(items) * (worker + 1) // workers for worker in range(workers)]
    items.clear()
    for worker, end in enumerate(ends):
        items += long[worker::workers]
        missing = end - len(items)
        items += rest[:missing]
        del rest[:missing]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a whole run that left a shell block out. Exhaustive tests run the blocks of options."""
    config = session.config
    asked = config.option.keyword or config.option.collectonly or config.option.lf
    whole = config.args_source is not config.ArgsSource.ARGS and not asked
    marks = ("not exhaustive", "exhaustive")
    if whole and config.option.markexpr in marks and not hasattr(config, "workerinput"):
        of_options = {f"{readmes.PRODUCT}/{name}" for name in optional_files()} | {
            "docs/options.md"
        }
        chosen = config.option.markexpr == marks[1]
        pages = [page for page in readmes.READMES if (page in of_options) is chosen]
        for block in readmes.not_taken(pages):
            print(f"\nno test runs the block in {block}")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def user_environment() -> dict[str, str]:
    """This process's environment as a user's shell would have it."""
    return {name: value for name, value in os.environ.items() if not name.startswith(INHERITED)}


def cookiecutter(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run cookiecutter's command in `directory` on this template."""
    return subprocess.run(
        [sys.executable, "-m", "cookiecutter", str(TEMPLATE), "--no-input", *arguments],
        cwd=directory,
        env=user_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )


def tracked(directory: Path) -> set[str]:
    """The files below `directory` that belong to the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    result = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=True)
    names = result.stdout.split("\0")
    return {name for name in names if name and (directory / name).exists()}


def git(directory: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=Test", "-c", "user.email=test@example.com", *arguments]
    result = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True)
    return result.stdout


@dataclass(frozen=True)
class Project:
    """A generated project and the commands run in it."""

    path: Path

    def run(
        self,
        *command: str,
        cwd: Path | None = None,
        check: bool = True,
        env: dict[str, str] | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `command` in the project; if `check`, its failure fails the test."""
        result = subprocess.run(
            command,
            cwd=cwd or self.path,
            env=user_environment() | (env or {}),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=600,
        )
        if check and result.returncode:
            pytest.fail(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
        return result

    def uv(self, *command: str, check: bool = True, env: dict[str, str] | None = None) -> str:
        """`uv run COMMAND`; its output and errors together."""
        result = self.run("uv", "run", "--quiet", *command, check=check, env=env)
        return result.stdout + result.stderr

    def lint(self, *options: str) -> None:
        """Fail if ruff or mypy has something to say."""
        for command in ("ruff check", "ruff format --check", "mypy"):
            self.uv(*options, *command.split())

    def start(self, *command: str, stderr: int | None = None) -> "subprocess.Popen[str]":
        """`uv run COMMAND`, whose input and output are the caller's."""
        return subprocess.Popen(
            ["uv", "run", "--quiet", *command],
            cwd=self.path,
            env=user_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )

    def copy(self, target: Path) -> "Project":
        """The project elsewhere, to be changed; its environment is made anew."""
        ignored = shutil.ignore_patterns(".venv", ".postgres", "__pycache__", ".*_cache")
        return Project(Path(shutil.copytree(self.path, target / self.path.name, ignore=ignored)))

    def add_tests(self, *directories: str) -> None:
        """Add tests that the template keeps for itself to those of the project."""
        ignored = shutil.ignore_patterns("__pycache__")
        for name in directories:
            shutil.copytree(TEMPLATE / "tests" / name, self.path / "tests" / name, ignore=ignored)

    def replace(self, name: str, old: str, new: str) -> None:
        """Edit a file; `old` must be there."""
        text = (self.path / name).read_text()
        assert old in text, f"{name} holds no {old!r}"
        (self.path / name).write_text(text.replace(old, new))


Bake = Callable[..., Project]


def bake_with(cookies: Cookies, answers: dict[str, object]) -> Project:
    """Bake, refusing what pytest-cookies ignores: an answer to a question nobody asked."""
    questions = json.loads((TEMPLATE / "cookiecutter.json").read_text())
    unknown = answers.keys() - questions.keys()
    assert not unknown, f"cookiecutter.json does not ask for {sorted(unknown)}"
    result = cookies.bake(extra_context=answers, template=str(TEMPLATE))
    if result.exception:
        raise result.exception
    return Project(Path(result.project_path))


def questions() -> dict[str, object]:
    """The questions of cookiecutter.json, each with its default."""
    content = json.loads((TEMPLATE / "cookiecutter.json").read_text())
    return {name: default for name, default in content.items() if not name.startswith("_")}


def choices() -> dict[str, list[object]]:
    """The options of cookiecutter.json and what each can be: yes or no, or one of a list."""
    return {
        name: default if isinstance(default, list) else [True, False]
        for name, default in questions().items()
        if isinstance(default, list | bool)
    }


def brings(name: str, value: object) -> bool:
    """Whether an answer adds anything to the project."""
    return (name, value) in post_gen_project.OPTIONAL


def word(answer: object) -> str:
    """An answer as a mark has it."""
    return {"True": "yes", "False": "no"}.get(str(answer), str(answer))


def touched(name: str, value: object) -> set[str]:
    """The files that come with an answer, or have lines for it."""
    marks = re.compile(rf"# option: {name}=(\w+,)*{word(value)}(,\w+)*$", re.MULTILINE)
    marked = {
        file
        for file in post_gen_project.MARKED
        if marks.search((PROJECT_DIRECTORY / file).read_text())
    }
    return marked | {*post_gen_project.OPTIONAL[name, value].split()}


def matrix() -> list[dict[str, object]]:
    """The defaults, nothing, everything, each answer alone, and pairs that touch a common file."""
    options = choices()
    off = {
        name: next(v for v in values if not brings(name, v)) for name, values in options.items()
    }
    single = [(n, v) for n, values in options.items() for v in values if brings(n, v)]
    everything = product(*([v for v in options[n] if brings(n, v)] for n in options))
    pairs = [
        {one[0]: one[1], other[0]: other[1]}
        for one, other in combinations(single, 2)
        if one[0] != other[0] and touched(*one) & touched(*other)
    ]
    default = {name: values[0] for name, values in options.items()}
    found = [default, off, *(dict(zip(options, values, strict=True)) for values in everything)]
    found += [off | {name: value} for name, value in single] + [off | pair for pair in pairs]
    return [answers for i, answers in enumerate(found) if answers not in found[:i]]


def commit(directory: Path) -> None:
    """Make `directory` a git repository, unless it is one, and commit all that is not ignored."""
    git(directory, "init", "--quiet")
    git(directory, "add", "--all")
    git(directory, "commit", "--quiet", "--allow-empty", "--message", "All")


def optional_files() -> set[str]:
    return {name for names in post_gen_project.OPTIONAL.values() for name in names.split()}


def faults(project: Path) -> list[str]:
    """The faults that the hook finds in a project."""
    return post_gen_project.verify(project)


# What finds fault with a file that no test can have carried out; neither asks a server.
SCHEMA = "check-jsonschema --builtin-schema vendor."
LINTERS = {
    "Dockerfile": ["hadolint Dockerfile"],
    "compose.yaml": [f"{SCHEMA}compose-spec compose.yaml"],
    ".github/workflows/ci.yml": [
        f"{SCHEMA}github-workflows .github/workflows/ci.yml",
        "zizmor --offline --quiet --strict-collection .github",
    ],
    ".github/dependabot.yml": [f"{SCHEMA}dependabot .github/dependabot.yml"],
    ".gitlab-ci.yml": [f"{SCHEMA}gitlab-ci .gitlab-ci.yml"],
    ".pre-commit-config.yaml": ["prek validate-config .pre-commit-config.yaml"],
    "pyproject.toml": ["ruff check --no-cache", "ruff format --check --no-cache"],
}


def tool(command: str) -> list[str]:
    """A command whose program was installed with these tests."""
    program, *options = command.split()
    return [str(Path(sys.executable).with_name(program)), *options]


def findings(project: Path) -> list[str]:
    """What linters say of the files that a project has."""
    said = []
    for name in filter(lambda name: (project / name).exists(), LINTERS):
        for linter in LINTERS[name]:
            result = subprocess.run(tool(linter), cwd=project, capture_output=True, text=True)
            if result.returncode:
                said.append(f"{linter}\n{result.stdout}{result.stderr}")
    return said


@pytest.fixture
def bake(cookies: Cookies) -> Bake:
    """`bake(project_name=…)`: a new project from these answers."""
    return lambda **answers: bake_with(cookies, answers)


@pytest.fixture(scope="session")
def baked(cookies_session: Cookies) -> Project:
    """The default project as generated; only to be read."""
    return bake_with(cookies_session, {})


def interpreters(but_this: bool = False, minors: Iterable[int] = range(11, 15)) -> list[str]:
    """Each Python from 3.11 on that this machine has: on PATH, or kept by pyenv.

    All other tests of generated projects run on this one.
    """
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found = {}
    for minor in minors:
        if but_this and minor == sys.version_info.minor:
            continue
        candidates = [
            f"python3.{minor}",
            *map(str, pyenv.glob(f"versions/3.{minor}.*/bin/python")),
        ]
        for candidate in candidates:
            command = [candidate, "-c", "import sys; print(sys.executable)"]
            try:
                result = subprocess.run(command, capture_output=True, text=True)
            except FileNotFoundError:
                continue
            if result.returncode == 0:
                found[minor] = result.stdout.strip()
    return list(found.values())


def short_directory() -> Path:
    """A new directory near the root, where a socket's address is not too long."""
    return Path(tempfile.mkdtemp(dir=os.environ["PYTEST_DEBUG_TEMPROOT"]))


@pytest.fixture(scope="session")
def installed(baked: Project) -> Project:
    """The default project, installed, without `.env`; only for commands that leave no trace.

    All workers use the same one.
    """
    place = Path(os.environ["PYTEST_DEBUG_TEMPROOT"])
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        ready = place / "installed"
        if not ready.exists():
            project = make_installed(baked)
            ready.symlink_to(project.path.parent)
    return Project(ready.resolve() / baked.path.name)


def make_installed(baked: Project) -> Project:
    project = baked.copy(short_directory())
    (project.path / ".env").unlink()
    project.run("uv", "sync", "--quiet")
    # Python compiles these now, and link_bytecode() spares other copies that.
    script = "import alembic.command, dev.postgres, httpx, pytest, uvicorn, app.main"
    url = {"DATABASE_URL": "postgresql://localhost/app"}
    project.run("uv", "run", "--quiet", "python", "-c", script, env=url)
    return project


def link_bytecode(source: Path, target: Path) -> None:
    """Give an environment the bytecode of another one, where both have the same packages."""
    for directory in bytecode(source):
        place = target / directory
        if place.parent.is_dir() and not place.exists():
            shutil.copytree(source / directory, place, copy_function=os.link)


@cache
def bytecode(environment: Path) -> list[Path]:
    return [path.relative_to(environment) for path in environment.glob("lib/**/__pycache__")]


def install(project: Project, like: Project) -> None:
    """Install a project with the versions and the bytecode of another one."""
    shutil.copy(like.path / "uv.lock", project.path)
    project.run("uv", "sync", "--quiet", "--python", sys.executable)
    link_bytecode(like.path / ".venv", project.path / ".venv")


@pytest.fixture(scope="session")
def workplace() -> Path:
    """Where the installed copies are, one after the other, and their environment meanwhile."""
    return short_directory()


@pytest.fixture
def copied(request: pytest.FixtureRequest, baked: Project, workplace: Path) -> Iterator[Project]:
    """A copy of the default project, to be changed. In a slow test it is installed.

    The next copy has the same path and so can use the same environment.
    """
    if not request.node.get_closest_marker("slow"):
        yield baked.copy(short_directory())
        return
    installed: Project = request.getfixturevalue("installed")
    project, kept = baked.copy(workplace), workplace / "kept"
    try:
        if kept.exists():
            kept.rename(project.path / ".venv")
        install(project, installed)
        yield project
    finally:
        used = project.path.rename(short_directory() / "used")
        (used / ".venv").rename(kept)
        shutil.rmtree(used, ignore_errors=True)


@pytest.fixture
def started(copied: Project, workplace: Path) -> Project:
    """An installed copy whose PostgreSQL has run before. initdb takes longer than many a test."""
    data, kept = copied.path / ".postgres", workplace / "postgres"
    if not kept.exists():
        copied.uv("dev", "true")
        subprocess.run(["cp", "-a", data, kept], check=True)
    else:
        subprocess.run(["cp", "-a", kept, data], check=True)
    return copied


def move_on(template: Path) -> None:
    """The next release: a file changed, one new, one gone, a floor raised."""
    product = Project(template / PROJECT_DIRECTORY.name)
    product.replace("pyproject.toml", "structlog>=25.1.0", "structlog>=25.2.0")
    roles = product.path / "roles.sql"
    roles.write_text(roles.read_text() + "-- Second release.\n")
    (product.path / "app" / "clock.py").write_text('"""What time it is."""\n')
    (product.path / "tests" / "test_health.py").unlink()
    git(template, "add", "--all")
    git(template, "commit", "--quiet", "--message", "Second")
    git(template, "tag", "v2")


@pytest.fixture
def template_repository(tmp_path: Path) -> Path:
    """This template as a git repository with one commit."""
    return copy_template(tmp_path / "template")


def copy_template(repository: Path) -> Path:
    for name in tracked(TEMPLATE):
        target = repository / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(TEMPLATE / name, target)
    for command in ("init -q", "add --all", "commit -q --message First"):
        git(repository, *command.split())
    return repository


@pytest.fixture(scope="session")
def uv_cache() -> str:
    """Where uv keeps packages, for tests with a home of their own to download nothing twice."""
    command = ["uv", "cache", "dir"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
