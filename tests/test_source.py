"""The fingerprint of a verb's code changes when its results could, and only then."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree

import pytest

from difftime.study import fingerprint as source

VERBS = ("train", "elbo", "likelihood", "samples")
PACKAGE = Path(source.__file__).parents[1]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the package that fingerprints are taken of."""
    copytree(PACKAGE, tmp_path / "difftime", ignore=lambda *_: ["__pycache__"])
    monkeypatch.setattr(source, "ROOT", tmp_path / "difftime")
    forget()
    yield tmp_path / "difftime"
    forget()


def forget() -> None:
    source.fingerprint.cache_clear()
    source._parsed.cache_clear()


def fingerprints() -> dict[str, str]:
    """Of every verb, of the tables and of every figure."""
    forget()
    figures = [f"figures.{path.stem}" for path in (source.ROOT / "figures").glob("[a-z]*.py")]
    return {name: source.fingerprint(name) for name in (*(f"study.commands.{verb}" for verb in VERBS), "tables.derived", *figures)}


def changed(module: Path, old: str, new: str) -> set[str]:
    """Whose fingerprint changes with an edit."""
    before, text = fingerprints(), module.read_text()
    assert old in text
    module.write_text(text.replace(old, new, 1))
    after = fingerprints()
    return {name for name in before if before[name] != after[name]}


def test_a_copy_of_the_package_has_the_fingerprints_of_the_package(package: Path) -> None:
    copied = fingerprints()
    source.ROOT = PACKAGE  # the fixture puts it back
    assert fingerprints() == copied
    assert len(set(copied.values())) == len(copied)
    assert all(len(value) == 12 for value in copied.values())


@pytest.mark.parametrize("extra", ["\n\n\n# a comment\n", '\n"""A word on what stands above."""\n'])
def test_comments_empty_lines_and_words_at_the_end_of_every_module_change_nothing(package: Path, extra: str) -> None:
    before = fingerprints()
    for module in package.rglob("*.py"):
        module.write_text(module.read_text() + extra)
    assert fingerprints() == before


def test_no_docstring_and_no_layout_matters(package: Path) -> None:
    """Every module is written anew from its syntax tree, with other docstrings and without comments."""
    before = fingerprints()
    for module in package.rglob("*.py"):
        tree = ast.parse(module.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node):
                node.body[0] = ast.Expr(ast.Constant("other words"))
        module.write_text(ast.unparse(ast.fix_missing_locations(tree)))
    assert fingerprints() == before


def test_a_docstring_is_known_from_a_text_that_is_used(package: Path) -> None:
    (package / "words.py").write_text('def f():\n    """Say."""\n    return "one"\n')
    first = source.fingerprint("words")
    for text, same in (
        ('def f():\n    """Say it."""\n    return "one"\n', True),
        ('def f():\n    return "one"\n', True),
        ('def f():\n    """Say."""\n    return "two"\n', False),
        ('def f(x="""Say."""):\n    return "one"\n', False),
    ):
        (package / "words.py").write_text(text)
        forget()
        assert (source.fingerprint("words") == first) == same


def test_a_verb_is_covered_with_what_it_imports_and_no_further(package: Path) -> None:
    assert changed(package / "measures" / "elbo.py", "0.5 * weight", "0.25 * weight") == {"study.commands.elbo"}
    assert changed(package / "measures" / "rk45.py", "MAX_FACTOR = 0.9", "MAX_FACTOR = 0.8") == {"study.commands.likelihood", "study.commands.samples"}
    assert changed(package / "study" / "commands" / "samples.py", "OUTPUTS = ", "OUTPUTS = OUTPUTS_TOO = ") == {"study.commands.samples"}
    assert changed(package / "tables" / "derived.py", "finite.std(ddof=1)", "finite.std(ddof=0)") >= {"tables.derived"}


def test_what_every_verb_rests_on_covers_every_verb(package: Path) -> None:
    for module in ("diffusion/sde.py", "study/cell.py", "training/nets/mlp.py", "study/commands/common.py", "support/streams.py"):
        assert changed(package / module, "\n\n\n", "\n\nnew = 1\n\n") == {f"study.commands.{verb}" for verb in VERBS}


@pytest.mark.parametrize("name", sorted(source.NOT_FOLLOWED))
def test_what_changes_no_result_changes_no_fingerprint(package: Path, name: str) -> None:
    assert changed(package / f"{name.replace('.', '/')}.py", "\n\n\n", "\n\nnew = 1\n\n") == set()


def test_a_figure_is_covered_with_its_style_and_not_with_its_neighbours(package: Path) -> None:
    figures = {name for name in fingerprints() if name.startswith("figures.")}
    assert changed(package / "figures" / "fig1.py", "\n\n\n", "\n\nnew = 1\n\n") == {"figures.fig1"}
    assert changed(package / "figures" / "style.py", "\n\n\n", "\n\nnew = 1\n\n") == figures


def test_an_import_inside_a_function_is_followed(package: Path) -> None:
    (package / "late.py").write_text("def f():\n    from difftime.support.streams import stream\n    return stream\n")
    first = source.fingerprint("late")
    (package / "support" / "streams.py").write_text("stream = None\n")
    forget()
    assert source.fingerprint("late") != first


def test_two_modules_that_import_each_other_have_a_fingerprint(package: Path) -> None:
    (package / "one.py").write_text("from difftime import other\n")
    (package / "other.py").write_text("import os\nfrom difftime.one import x\n")
    assert source.fingerprint("one") == source.fingerprint("other")


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_imports_itself_only_in_the_form_that_is_followed(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
        if isinstance(node, ast.Import):
            assert not [alias.name for alias in node.names if alias.name.split(".")[0] == "difftime"]
