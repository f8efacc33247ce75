"""What is rendered into README.md and the docs: parts between markers, and the graph of the rules."""

import re
from pathlib import Path

import pytest

from workflow.readme import PAGES, graph, put

PAGE = "before\n<!-- table1 begins -->\n<!-- table1 ends -->\nafter\n"


def page(folder: Path, text: str) -> Path:
    path = folder / "page.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_was_rendered_is_replaced_again_and_again_and_nothing_else(tmp_path: Path) -> None:
    path = page(tmp_path, PAGE)
    assert put("| a |\n", "table1", path)
    assert put("| b |\n", "table1", path)
    assert path.read_text(encoding="utf-8").startswith("before\n<!-- table1 begins ")
    assert path.read_text(encoding="utf-8").endswith("\n| b |\n<!-- table1 ends -->\nafter\n")
    assert "| a |" not in path.read_text(encoding="utf-8")


def test_a_page_without_the_part_is_left_alone(tmp_path: Path) -> None:
    path = page(tmp_path, PAGE)
    assert not put("new", "findings", path)
    assert path.read_text(encoding="utf-8") == PAGE


@pytest.mark.parametrize("change", [("| a |", "| a |\n\nA word by hand."), ("| a |", "| 1 |")])
def test_what_a_person_wrote_between_the_markers_is_not_deleted(tmp_path: Path, change: tuple[str, str]) -> None:
    path = page(tmp_path, PAGE)
    put("| a |", "table1", path)
    by_hand = path.read_text(encoding="utf-8").replace(*change)
    path.write_text(by_hand, encoding="utf-8")
    with pytest.raises(ValueError, match="would be lost"):
        put("| b |", "table1", path)
    assert path.read_text(encoding="utf-8") == by_hand


@pytest.mark.parametrize(
    "broken",
    [
        PAGE.replace("<!-- table1 ends -->", ""),
        PAGE.replace("<!-- table1 begins -->", ""),
        PAGE + PAGE,
        "<!-- table1 ends -->\n<!-- table1 begins -->\n",
    ],
)
def test_markers_that_are_no_pair_are_refused_and_nothing_is_lost(tmp_path: Path, broken: str) -> None:
    path = page(tmp_path, broken)
    with pytest.raises(ValueError, match="one pair of markers"):
        put("new", "table1", path)
    assert path.read_text(encoding="utf-8") == broken


def test_every_part_has_a_page() -> None:
    shown = {
        part for path in PAGES for part in re.findall(r"<!-- (\w+) begins[^>]*-->", path.read_text(encoding="utf-8"))
    }
    assert shown == {"findings", "table1", "cheapest"}


def test_stages_run_from_left_to_right_and_shortcuts_are_left_out() -> None:
    drawn = graph(["a", "b", "c"], [("a", "b"), ("b", "c"), ("a", "c")])
    left = [int(x) for x in re.findall(r'<rect x="(\d+)"', drawn)]
    assert left == sorted(left)
    assert len(set(left)) == 3
    assert drawn.count("<path") == 2
