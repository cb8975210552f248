"""Whatever is answered is refused in one line, or comes through unchanged."""

import json
import re
import tomllib
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

import pre_gen_project
import pytest
import yaml
from conftest import TEMPLATE, cookiecutter, tracked
from cookiecutter.environment import StrictEnvironment
from cookiecutter.exceptions import FailedHookException
from cookiecutter.main import cookiecutter as generate
from dotenv import dotenv_values
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

VARIABLES = {
    *("DATABASE_URL", "DATABASE_URL_SYNC", "SHUTDOWN_DELAY_SECONDS"),
    *("APP_OWNER_PASSWORD", "APP_PASSWORD"),
}
QUESTIONS = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
NASTY = [
    "'",
    '"',
    "\\",
    "%",
    "$",
    "#",
    "{",
    "}",
    "${x}",
    "%(here)s",
    ": ",
    " #",
    "🎉",
    "é",
    "日本",
]
NASTY += [
    "\n",
    "\r",
    "\t",
    "\0",
    "\x85",
    "\u2028",
    "\u2029",
    "\ufeff",
    "\ud800",
    "|",
    "`",
    "<",
    "&",
]


def is_jinja(text: str) -> bool:
    """Cookiecutter renders this before any hook runs."""
    return bool(re.search(r"\{\{|\{%|\{#", text))


def is_no_name(slug: str) -> bool:
    """Cookiecutter makes the directory before any hook runs, and fails with these itself."""
    return slug in {"", ".", ".."} or bool(re.search("[/\0\ud800-\udfff]", slug))


printable = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=12)
hostile = st.lists(st.one_of(st.sampled_from(NASTY), st.text(max_size=6)), max_size=8).map("".join)
texts = st.one_of(printable, printable, hostile).filter(lambda text: not is_jinja(text))
valid_slugs = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,20}[A-Za-z0-9])?", fullmatch=True)
slugs = st.one_of(
    texts,
    valid_slugs,
    st.sampled_from(
        [*pre_gen_project.DEPENDENCIES, "CON", "lpt1.x", "FastAPI", "py_test", "my-api"]
    ),
).filter(lambda slug: not is_no_name(slug))


def answers_after_derivation(**answers: str) -> dict[str, str]:
    """What templates see: the answers and the private values derived from them."""
    context = {"cookiecutter": dict(answers)}
    environment = StrictEnvironment(context=context)
    for name, value in QUESTIONS.items():
        if name.startswith("__") and name != "__prompts__":
            rendered = environment.from_string(value).render(**context)
            context["cookiecutter"][name] = rendered
    return context["cookiecutter"]


@settings(max_examples=500, deadline=None, derandomize=True)
@given(texts)
def test_the_quoted_text_means_the_same_in_toml_yaml_and_env(text: str) -> None:
    if pre_gen_project.check_text("description", text):
        return
    answers = answers_after_derivation(project_name="x", project_slug="my-api", description=text)
    quoted = answers["__description"]
    assert tomllib.loads(f"text = {quoted}")["text"] == text
    assert yaml.safe_load(f"text: {quoted}")["text"] == text
    assert dotenv_values(stream=StringIO(f"TEXT={quoted}\n"), interpolate=False)["TEXT"] == text


@settings(max_examples=500, deadline=None, derandomize=True)
@given(slugs)
def test_an_accepted_slug_names_a_database_and_survives_as_it_is(slug: str) -> None:
    if pre_gen_project.check_slug(slug):
        return
    answers = answers_after_derivation(project_name="x", project_slug=slug, description="")
    assert re.fullmatch(r"[a-z0-9_]{1,63}", answers["__database"])


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(printable.filter(lambda text: not is_jinja(text)), valid_slugs, printable)
@example('It\'s "my" \\ API', "my-api", "100 % of $HOME # {it} 🎉 日本語")
@example("\ufeffname", "A.b_c", "\\")
def test_what_is_accepted_comes_out_whole(name: str, slug: str, description: str) -> None:
    assume(not is_jinja(description) and refused(name, slug, description) is None)
    with TemporaryDirectory() as directory:
        bake(Path(directory), name, slug, description)
        (project,) = Path(directory).iterdir()
        assert_whole(project, name, slug, description)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(texts, slugs, texts)
@example("My API", "\u212aube", "")
@example("\ufffe", "my-api", "\uffff")
def test_what_is_refused_leaves_nothing(name: str, slug: str, description: str) -> None:
    assume(refused(name, slug, description) is not None)
    with TemporaryDirectory() as directory:
        with pytest.raises(FailedHookException):
            bake(Path(directory), name, slug, description)
        assert list(Path(directory).iterdir()) == []


def refused(name: str, slug: str, description: str) -> str | None:
    return (
        pre_gen_project.check_text("project_name", name)
        or pre_gen_project.check_slug(slug)
        or pre_gen_project.check_text("description", description)
    )


def bake(directory: Path, name: str, slug: str, description: str) -> None:
    answers = {"project_name": name, "project_slug": slug, "description": description}
    generate(
        str(TEMPLATE),
        no_input=True,
        extra_context=answers,
        output_dir=str(directory),
        default_config=True,
    )


def assert_whole(project: Path, name: str, slug: str, description: str) -> None:
    assert project.name == slug
    about = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    assert (about["name"], about["description"]) == (slug, description)
    lines = (project / "README.md").read_text("utf-8").split("\n")
    assert (lines[0], lines[2]) == (f"# {name}", description)
    for file in (".env", ".env.example"):
        assert dotenv_values(project / file).keys() == VARIABLES
    for path in project.rglob("*.py"):
        compile(path.read_bytes(), str(path), "exec")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My API", "my-api"),
        ("Ünïcode Ädvänced", "unicode-advanced"),
        ("日本語", "ri-ben-yu"),
        ("!!!", "my-api"),
        ("🎉", "my-api"),
        ("long " * 60, "long-" * 9 + "long"),
    ],
)
def test_the_default_slug_is_valid_whatever_the_name(name: str, slug: str) -> None:
    context = {"cookiecutter": {"project_name": name}}
    rendered = StrictEnvironment(context=context).from_string(QUESTIONS["project_slug"])
    assert rendered.render(**context) == slug
    assert pre_gen_project.check_slug(slug) is None


def test_a_misspelt_answer_shows_in_the_summary(tmp_path: Path) -> None:
    """Cookiecutter ignores it before any hook runs; what was used instead is told."""
    result = cookiecutter(tmp_path, "projet_name=Billing", "description=Bills")
    assert result.returncode == 0
    assert "My API (Bills) is ready" in result.stdout


BEFORE_ANY_HOOK = {
    "Jinja that is wrong": ("description={{ x", "Traceback"),
    "a name that is too long": ("project_slug=" + "x" * 300, "File name too long"),
    "no name at all": ("project_slug=", "already exists"),
}


@pytest.mark.parametrize(("answer", "words"), BEFORE_ANY_HOOK.values(), ids=BEFORE_ANY_HOOK)
def test_what_cookiecutter_itself_says_is_known(tmp_path: Path, answer: str, words: str) -> None:
    result = cookiecutter(tmp_path, answer)
    assert result.returncode != 0
    assert words in result.stdout + result.stderr
    assert list(tmp_path.iterdir()) == []


def test_every_file_of_the_template_is_utf8_with_unix_lines() -> None:
    for name in tracked(TEMPLATE):
        assert "\r" not in (TEMPLATE / name).read_text(encoding="utf-8")
