"""What is rendered into README.md replaces what was rendered before, and nothing that a person wrote."""

from __future__ import annotations

import pytest

from workflow.readme import replaced

EMPTY = "Before.\n<!-- speed begins -->\n<!-- speed ends -->\nAfter.\n"


def test_what_was_rendered_is_replaced_again_and_again_and_nothing_else() -> None:
    page = replaced(replaced(EMPTY, "speed", "| a |\n"), "speed", "| b |\n")
    assert page.startswith("Before.\n<!-- speed begins ")
    assert page.endswith("\n| b |\n<!-- speed ends -->\nAfter.\n")
    assert "| a |" not in page


@pytest.mark.parametrize("change", [("| a |", "| a |\n\nA word by hand."), ("| a |", "| 1 |")])
def test_what_a_person_wrote_between_the_markers_is_not_deleted(change: tuple[str, str]) -> None:
    page = replaced(EMPTY, "speed", "| a |").replace(*change)
    with pytest.raises(SystemExit, match=r"between the markers of speed .* would be lost"):
        replaced(page, "speed", "| b |")


def test_prose_between_markers_without_a_digest_is_not_deleted() -> None:
    with pytest.raises(SystemExit, match="would be lost"):
        replaced(EMPTY.replace("-->\n<!--", "-->\nBy hand.\n<!--"), "speed", "| b |")


@pytest.mark.parametrize("page", ["nothing", EMPTY + EMPTY])
def test_markers_must_be_one_pair(page: str) -> None:
    with pytest.raises(SystemExit, match="pairs of markers of speed"):
        replaced(page, "speed", "| b |")
