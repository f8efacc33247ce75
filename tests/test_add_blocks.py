"""Blocks added to a study file: its other lines stay, and what cannot be added leaves it alone."""

from pathlib import Path

import pytest
import yaml

from difftime.study.settings import BadSettings, add_blocks

BLOCK = {"dataset": "toy", "sde": "vp", "net": "mlp", "T": [0.16, 0.45]}
ITEM = "{dataset: toy, sde: vp, net: mlp, T: 0.3}"

COMMENTED = f"""\
# mine
study:   # the grid
  # the first
  - {ITEM}   # keep
  # after it

# how
optimum: {{loss: 0.1}}
"""
BLOCK_STYLE = {
    "comments": COMMENTED,
    "Windows": COMMENTED.replace("\n", "\r\n"),
    "a mark of the byte order": f"\ufeffstudy:\n- {ITEM}\n",
    "no line break at the end": f"results: x\nstudy:\n- {ITEM}",
    "several lines": "study:\n  - dataset: toy\n    sde: vp\n    net: mlp\n    T: [0.3,\n 0.4]\noptimum: {}\n",
    "the end of a document": f"study:\n- {ITEM}\n...\n",
    "nothing yet": "study:\nresults: x\n",
}
OTHER_STYLE = {
    "one line": f"study: [{ITEM}]\n",
    "brackets below": f"study:\n  [{ITEM}]\n",
    "quotes": f'"study":\n- {ITEM}\n',
    "JSON": '{"study": []}',
    "no study": "results: x\n",
}


def file_of(text: str, folder: Path) -> Path:
    path = folder / "mine.yaml"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("text", BLOCK_STYLE.values(), ids=BLOCK_STYLE)
def test_a_block_is_added_and_every_other_line_stays(text: str, tmp_path: Path) -> None:
    path = file_of(text, tmp_path)
    before = yaml.safe_load(text)
    add_blocks(path, [BLOCK])
    after = path.read_bytes().decode()
    assert yaml.safe_load(after) == {**before, "study": [*(before["study"] or []), BLOCK]}
    lines = [line for line in after.splitlines() if not line.lstrip().startswith('- {"dataset"')]
    assert lines == text.splitlines()
    assert after.count("\r\n") in (0, after.count("\n"))


def test_a_block_stands_with_the_list_and_not_with_the_comment_on_the_next_key(tmp_path: Path) -> None:
    path = file_of(COMMENTED, tmp_path)
    add_blocks(path, [BLOCK])
    assert path.read_text().index('"dataset"') < path.read_text().index("# how")


@pytest.mark.parametrize("text", OTHER_STYLE.values(), ids=OTHER_STYLE)
def test_a_list_of_another_style_is_left_alone_and_the_message_has_the_block(text: str, tmp_path: Path) -> None:
    path = file_of(text, tmp_path)
    with pytest.raises(BadSettings, match=r'- \{"dataset": "toy"'):
        add_blocks(path, [BLOCK])
    assert path.read_bytes() == text.encode()


def test_what_is_there_already_is_not_added_again(tmp_path: Path) -> None:
    path = file_of(COMMENTED, tmp_path)
    add_blocks(path, [BLOCK])
    once = path.read_bytes()
    assert "Nothing to add" in add_blocks(path, [BLOCK])
    assert path.read_bytes() == once
    add_blocks(path, [BLOCK | {"T": [0.3, 0.45, 0.6]}])
    assert yaml.safe_load(path.read_text())["study"][-1]["T"] == [0.6]


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"study:\n- \xff\n")
    with pytest.raises(BadSettings, match="UTF-8"):
        add_blocks(path, [BLOCK])


def test_a_link_stays_a_link_and_a_file_keeps_its_mode(tmp_path: Path) -> None:
    path = file_of(COMMENTED, tmp_path)
    path.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(path)
    add_blocks(link, [BLOCK])
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o640
    assert len(yaml.safe_load(path.read_text())["study"]) == 2
