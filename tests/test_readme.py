"""What is rendered into README.md and the docs: parts between markers, and the graph of the rules."""

import re
from pathlib import Path

import pytest

from workflow.readme import PAGES, graph, put

PAGE = "before\n<!-- speed begins -->\nold\n<!-- speed ends -->\nafter\n"


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text)
    return path


def test_a_part_replaces_what_stood_between_its_markers(tmp_path: Path) -> None:
    path = page(tmp_path, PAGE)
    assert put("new\n", "speed", path)
    assert path.read_text() == PAGE.replace("old", "new")
    assert put("new", "speed", path)
    assert path.read_text() == PAGE.replace("old", "new")


def test_a_page_without_the_part_is_left_alone(tmp_path: Path) -> None:
    path = page(tmp_path, PAGE)
    assert not put("new", "findings", path)
    assert path.read_text() == PAGE


@pytest.mark.parametrize(
    "broken",
    [
        PAGE.replace("<!-- speed ends -->", ""),
        PAGE.replace("<!-- speed begins -->", ""),
        PAGE + PAGE,
        "<!-- speed ends -->\n<!-- speed begins -->\n",
    ],
)
def test_markers_that_are_no_pair_are_refused_and_nothing_is_lost(tmp_path: Path, broken: str) -> None:
    path = page(tmp_path, broken)
    with pytest.raises(ValueError, match="one pair of markers"):
        put("new", "speed", path)
    assert path.read_text() == broken


def test_every_part_has_a_page() -> None:
    shown = {part for path in PAGES for part in re.findall(r"<!-- (\w+) begins -->", path.read_text())}
    assert shown == {"findings", "table1", "cheapest", "speed"}


def test_stages_run_from_left_to_right_and_shortcuts_are_left_out() -> None:
    drawn = graph(["a", "b", "c"], [("a", "b"), ("b", "c"), ("a", "c")])
    left = [int(x) for x in re.findall(r'<rect x="(\d+)"', drawn)]
    assert left == sorted(left)
    assert len(set(left)) == 3
    assert drawn.count("<path") == 2
