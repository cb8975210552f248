"""The shell blocks of the documentation.

A test that runs a block gets it from `take()`, which records the block. conftest.py fails a whole
run, of the default or of the exhaustive tests, in which a block was not taken.
"""

import json
import os
import re
import textwrap
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from post_gen_project import MARK

if TYPE_CHECKING:
    from conftest import Project

TEMPLATE = Path(__file__).resolve().parents[1]
PRODUCT = "{{cookiecutter.project_slug}}"
TEMPLATES, GENERATED, CONTRIBUTING = (
    "README.md",
    f"{PRODUCT}/README.md",
    ".github/CONTRIBUTING.md",
)
AGENTS, DEPLOY, MIGRATIONS = (
    f"{PRODUCT}/{name}" for name in ("AGENTS.md", "docs/deploy.md", "docs/migrations.md")
)
# The pages of the template and of the generated project.
READMES = [
    *(TEMPLATES, CONTRIBUTING, GENERATED, AGENTS),
    *(
        path.relative_to(TEMPLATE).as_posix()
        for root in (TEMPLATE, TEMPLATE / PRODUCT)
        for path in sorted(root.glob("docs/*.md"))
    ),
]
ADDRESS = re.compile(
    r"(gh:|https://github\.com/)[\w-]+/[\w-]+"
)  # the template's; a fork's differs


def read(readme: str) -> str:
    """Return the text of a page, of a generated one without the lines of options."""
    lines = []
    for line in (TEMPLATE / readme).read_text(encoding="utf-8").split("\n"):
        mark = MARK.search(line) if readme.startswith(PRODUCT) else None
        if mark is None:
            lines.append(line)
        elif default(mark[1]) in mark[2].split(","):
            lines.append(line[: mark.start()])
    return "\n".join(lines)


def default(question: str) -> str:
    """Return the default answer to a question as marks have it."""
    answer = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))[question]
    return str(answer[0]) if isinstance(answer, list) else "yes" if answer else "no"


def sections(readme: str) -> dict[str, str]:
    """Return the sections of level two by heading. The text before the first has the key ""."""
    first, *others = re.split(r"^## ", read(readme), flags=re.MULTILINE)
    return {"": first} | dict(other.split("\n", 1) for other in others)


def fenced(text: str, *languages: str) -> list[str]:
    """Return the code blocks of `text` in these languages, without indentation."""
    found = re.findall(r"^( *)```([\w-]*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(code) for _, language, code in found if language in languages]


def blocks(readme: str, heading: str) -> list[str]:
    """Return a section's shell blocks without their prompts."""
    found = fenced(sections(readme)[heading], "console", "sh", "bash", "shell")
    return [re.sub(r"^\$ ", "", code, flags=re.MULTILINE) for code in found]


def records() -> Path:
    """Return the directory where all processes of this run record the blocks that they took."""
    directory = Path(os.environ["PYTEST_DEBUG_TEMPROOT"]) / "taken"
    directory.mkdir(exist_ok=True)
    return directory


def record(readme: str, heading: str, number: int) -> str:
    return sha256(f"{readme} {heading} {number}".encode()).hexdigest()


def take(readme: str, heading: str = "", first: int = 0, last: int | None = None) -> list[str]:
    """Return a section's shell blocks from `first` to before `last`. The caller runs them."""
    found = list(enumerate(blocks(readme, heading)))[first:last]
    for number, _ in found:
        (records() / record(readme, heading, number)).touch()
    return [block for _, block in found]


def not_taken(readmes: Iterable[str]) -> list[str]:
    """Return the blocks that no test took: page, section and first line."""
    taken = {path.name for path in records().iterdir()}
    return [
        f"{readme}, {heading or 'at the top'}: {block.splitlines()[0]}"
        for readme in readmes
        for heading in sections(readme)
        for number, block in enumerate(blocks(readme, heading))
        if record(readme, heading, number) not in taken
    ]


def add_code_of_auth(project: "Project", imports: str) -> None:
    """Add the route and the test that both forms of docs/auth.md show to a project."""
    route, test = fenced((project.path / "docs/auth.md").read_text(), "python")
    routes = project.path / "app/items/routes.py"
    modules, code = route.split("\n\n", 1)
    text = routes.read_text().replace(
        "from app.web.openapi", f"{modules}\nfrom sqlalchemy import delete\nfrom app.web.openapi"
    )
    before, after = text.split('@router.get("/{item_id}"')  # which would match too
    code = f"{code}\n\n@router.get"
    routes.write_text(f'{before}{code}("/{{item_id}}"{after}')
    (project.path / "tests/test_page.py").write_text(imports + test)
    project.uv("ruff", "check", "--fix", "--quiet", "--ignore=F811")
