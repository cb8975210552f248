"""The shell blocks of the documentation. A test takes those that it runs, which is noted down:
at the end of a whole run, conftest.py fails it for a block that no test has taken."""

import os
import re
import textwrap
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parents[1]
TEMPLATES, GENERATED, CONTRIBUTING = READMES = (
    "README.md",
    "{{cookiecutter.project_slug}}/README.md",
    ".github/CONTRIBUTING.md",
)
ADDRESS = re.compile(r"(gh:|https://github\.com/)[\w-]+/[\w-]+")  # of the template; forks differ


def sections(readme: str) -> dict[str, str]:
    """Each section of level two by its heading; what comes before them by no heading."""
    text = (TEMPLATE / readme).read_text(encoding="utf-8")
    first, *others = re.split(r"^## ", text, flags=re.MULTILINE)
    return {"": first} | dict(other.split("\n", 1) for other in others)


def blocks(readme: str, heading: str) -> list[str]:
    """A section's shell blocks, without the prompts that the generated README has."""
    fenced = r"^( *)```(?:console|sh|bash|shell)\n(.*?)^\1```"
    found = re.findall(fenced, sections(readme)[heading], re.DOTALL | re.MULTILINE)
    return [re.sub(r"^\$ ", "", textwrap.dedent(code), flags=re.MULTILINE) for _, code in found]


def notes() -> Path:
    """Where all processes of this run note down what they have taken."""
    directory = Path(os.environ["PYTEST_DEBUG_TEMPROOT"]) / "taken"
    directory.mkdir(exist_ok=True)
    return directory


def note(readme: str, heading: str, number: int) -> str:
    return f"{READMES.index(readme)} {heading} {number}".replace("/", " ")


def take(readme: str, heading: str = "", first: int = 0, last: int | None = None) -> list[str]:
    """A section's shell blocks from the first to the last, which the caller runs."""
    found = list(enumerate(blocks(readme, heading)))[first:last]
    for number, _ in found:
        (notes() / note(readme, heading, number)).touch()
    return [block for _, block in found]


def not_taken() -> list[str]:
    """The blocks that no test has taken, each by where it is and its first line."""
    taken = {path.name for path in notes().iterdir()}
    return [
        f"{readme}, {heading or 'at the top'}: {block.splitlines()[0]}"
        for readme in READMES
        for heading in sections(readme)
        for number, block in enumerate(blocks(readme, heading))
        if note(readme, heading, number) not in taken
    ]
