"""The documentation's generated pages say everything that the code declares, and its pages fit the project."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs"))

import generate  # noqa: E402

PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "docs" / "tutorials").glob("*.md")])


def test_every_column_of_every_table_is_documented_with_its_unit() -> None:
    from difftime.tables.schema import TABLES

    sections = re.split(r"\n## ", generate.tables())[1:]
    assert [section.splitlines()[0] for section in sections] == [*TABLES]
    for section, columns in zip(sections, TABLES.values(), strict=True):
        rows = [line for line in section.splitlines() if line.startswith("| `")]
        assert [row.split("`")[1] for row in rows] == [column.name for column in columns]
        assert all(f"| {column.unit} |" in row for row, column in zip(rows, columns, strict=True))


def test_every_setting_is_documented() -> None:
    from difftime.study.settings import Study

    page, schema = generate.settings(), Study.model_json_schema()
    for of in (schema, *schema["$defs"].values()):
        for key in of.get("properties", {}):
            assert f"| `{key}` |" in page
    assert "| any |" not in page
    links = set(re.findall(r"\(#(settings-[\w-]+)\)", page))
    assert links <= set(re.findall(r"^\((settings-[\w-]+)\)=$", page, re.MULTILINE))


def test_every_command_and_option_is_documented() -> None:
    from typer.main import get_command

    from difftime.cli import app

    page = generate.cli()
    for name, command in get_command(app).commands.items():
        section = page.split(f"## difftime {name}\n")
        assert len(section) == (1 if command.hidden else 2)
        for parameter in command.params:
            hidden = command.hidden or getattr(parameter, "hidden", False) or parameter.name == "help"
            assert hidden or f"`{generate.spelled(parameter)}`" in section[1].split("\n## ")[0]


def test_every_figure_is_documented_with_its_caption() -> None:
    from difftime.study.registry import FIGURES

    page = generate.figures(ROOT / "docs")
    assert re.findall(r"^## (\w+)$", page, re.MULTILINE) == [*FIGURES]


def test_every_public_diffusion_is_documented() -> None:
    import difftime

    page = generate.diffusions()
    public = [name for name in difftime.__all__ if difftime.SDE in getattr(getattr(difftime, name), "__mro__", ())]
    assert sorted(re.findall(r"autoclass:: difftime[.](\w+)$", page, re.MULTILINE)) == sorted(public)
    assert "   :members: exponential\n" in page


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert generate.row("a|b", "c\nd") == "| a\\|b | c d |"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_is_in_the_contents(page: Path) -> None:
    contents = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    name = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
    assert name == "index" or f"\n{name}\n" in contents


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_the_readmes_pictures_and_pages_exist() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8")):
        assert (ROOT / target).exists(), target
