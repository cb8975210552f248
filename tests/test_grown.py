"""A project after its first month: `grown/` laid over a baked one, and a few edits."""

import re
import shutil
import textwrap

import pytest
import readmes
from conftest import TEMPLATE, Project

GROWN = TEMPLATE / "tests" / "grown"
GROW = f"{readmes.PRODUCT}/docs/grow.md"

# File, line, and the lines beside it.
EDITS = [
    (
        "pyproject.toml",
        '    "fastapi-swagger>=0.4.60",\n',
        '    "httpx>=0.28.0",\n    "python-multipart>=0.0.20",\n',
    ),
    ("pyproject.toml", '    "types-psutil>=7.0.0",\n', '    "websockets>=13.0",\n'),
    (
        "app/main.py",
        "from app.items import routes as items\n",
        """\
from app.customers import routes as customers
from app.invoices import routes as invoices
from app.invoices.service import CHANNEL
from app.listener import listener
from app.middleware import ApiVersion
from app.products import routes as products
from app.rates import routes as rates
from app.reports import routes as reports
""",
    ),
    (
        "app/main.py",
        "    app.include_router(items.router)\n",
        """\
    app.include_router(customers.router)
    app.include_router(invoices.router)
    app.include_router(products.router)
    app.include_router(rates.router)
    app.include_router(reports.router)
""",
    ),
    ("app/config.py", "    cors_origins: Names = []\n", "    rates_url: AnyHttpUrl\n"),
    (
        ".env.example",
        "SHUTDOWN_DELAY_SECONDS=0\n",
        "\n# The service with the exchange rates.\nRATES_URL=http://localhost:9000\n",
    ),
    ("compose.yaml", "      MAX_BODY_SIZE:\n", "      RATES_URL:\n"),
]
# File, text, and the text in its place.
REPLACEMENTS = [
    (
        "app/main.py",
        "            *cors(settings",
        '            Middleware(ApiVersion, version="2026-12"),\n            *cors(settings',
    ),
    (
        "app/main.py",
        "from starlette.middleware import Middleware\n",
        "from httpx import AsyncClient\nfrom starlette.middleware import Middleware\n",
    ),
    ("app/config.py", "from pydantic import ", "from pydantic import AnyHttpUrl, "),
    (
        "app/main.py",
        """\
    with app.state.shutdown.on_sigterm():
        yield
""",
        """\
    async with (
        AsyncClient(base_url=str(app.state.settings.rates_url), timeout=3) as app.state.rates,
        listener(engine, CHANNEL) as app.state.changes,
    ):
        with app.state.shutdown.on_sigterm():
            yield
""",
    ),
    ("alembic/env.py", "IGNORED_TABLES: list[str] = []", 'IGNORED_TABLES = ["queue_*"]'),
]
# What the next release changes in the models.
LATER = [
    (
        "app/models/product.py",
        '    HOUR = "hour"\n',
        '''\
    DAY = "day"


class Tax(StrEnum):
    """The rate of the value-added tax."""

    FULL = "full"
    REDUCED = "reduced"
''',
    ),
    (
        "app/models/product.py",
        "        server_default=Unit.PIECE,\n    )\n",
        """\
    tax: Mapped[Tax | None] = mapped_column(
        Enum(Tax, name="tax", values_callable=lambda taxes: [tax.value for tax in taxes])
    )
""",
    ),
    ("app/models/order.py", '    PHONE = "phone"\n', '    MAIL = "mail"\n'),
    (
        "app/models/user.py",
        "    email: Mapped[str] = mapped_column(unique=True)\n",
        "    name: Mapped[str | None]\n",
    ),
    ("app/models/text.py", "    text: Mapped[str]\n", "    state: Mapped[State | None]\n"),
    (
        "app/models/text.py",
        "from app.database import Base\n",
        '''

class State(StrEnum):
    """The state of a translation."""

    DRAFT = "draft"
    DONE = "done"
''',
    ),
    ("app/models/text.py", '"""Texts in several languages."""\n', "\nfrom enum import StrEnum\n"),
]


def insert(project: Project, edits: list[tuple[str, str, str]]) -> None:
    for name, line, added in edits:
        project.replace(name, line, line + added)


def grow(project: Project) -> None:
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(GROWN, project.path, dirs_exist_ok=True, ignore=ignored)
    insert(project, EDITS)
    for edit in REPLACEMENTS:
        project.replace(*edit)
    project.uv("ruff", "check", "--quiet", "--fix", "--select=I", "app/main.py")


def migrate(project: Project, env: dict[str, str] | None = None) -> None:
    """Generate and apply the revisions of two months. After each, nothing is left to generate."""
    for month in ("first", "second"):
        revision = f"alembic revision --autogenerate -m '{month} month'"
        script = f"alembic upgrade head && {revision} && alembic upgrade head && alembic check"
        if month == "second":
            insert(project, LATER)
        project.uv("dev", "sh", "-euc", script, env=env)


# One row that the script deletes, and one that it keeps.
SCRIPT = """
alembic upgrade head
psql -qc "INSERT INTO customers (name, email, deleted_at) VALUES
    ('old', 'a@example.com', now() - interval '2 years'), ('new', 'b@example.com', now())"
python -m app.customers.erase
psql -Atc "SELECT 'left: ' || string_agg(name, ' ') FROM customers"
"""


@pytest.mark.long
@pytest.mark.slow
def test_with_newest_dependencies(copied: Project) -> None:
    grow(copied)
    migrate(copied)
    copied.lint()
    assert " passed" in copied.uv("pytest", "-q", "-n", "2")
    urls = {"RATES_URL": "http://localhost:9000"}  # .env has the others
    assert "left: new" in copied.uv("dev", "sh", "-euc", SCRIPT, env=urls)
    start = "import app.main; print('imported')"
    assert "imported" in copied.uv("--no-dev", "--isolated", "python", "-c", start, env=urls)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.exhaustive
def test_with_lowest_dependencies(copied: Project) -> None:
    grow(copied)
    lowest = {"UV_RESOLUTION": "lowest-direct"}
    migrate(copied, lowest)
    assert " passed" in copied.uv("pytest", "-q", "-n", "2", env=lowest)


def grown(name: str) -> str:
    """Return a file of `grown/`, or what the edits put into a file."""
    if (GROWN / name).exists():
        return (GROWN / name).read_text("utf-8")
    return "\n".join(edit[-1] for edit in [*EDITS, *REPLACEMENTS] if edit[0] == name)


def test_code_of_the_page_is_tested_code() -> None:
    """Each block begins with the name of its file, and may leave paragraphs out."""
    blocks = readmes.fenced(readmes.read(GROW), "python")
    assert len(blocks) > 6
    for block in blocks:
        start, *files = re.split(r"^# (\w+/.+\.py)\n", block, flags=re.MULTILINE)
        assert not start, block
        for name, code in zip(files[::2], files[1::2], strict=True):
            for part in re.split(r"\n{2,}", code.strip()):
                levels = (textwrap.indent(part, " " * level) for level in range(0, 16, 4))
                assert any(f"\n{indented}" in f"\n{grown(name)}" for indented in levels), part


def test_code_between_words_is_tested_code() -> None:
    """What has a space and is no command."""
    names = {*(edit[0] for edit in EDITS), *(edit[0] for edit in REPLACEMENTS)}
    names |= {path.relative_to(GROWN).as_posix() for path in GROWN.rglob("*.py")}
    code = "\n".join(map(grown, names))
    prose = re.sub(r"^```.*?^```", "", readmes.read(GROW), flags=re.DOTALL | re.MULTILINE)
    spans = [span for span in re.findall(r"`([^`]+)`", prose) if " " in span]
    assert [span for span in spans if not span.startswith("uv ") and span not in code] == []
