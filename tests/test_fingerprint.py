"""The fingerprint of a command's code changes when its results could, and only then."""

from __future__ import annotations

import ast
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import copytree, which

import pytest

from difftime.study import fingerprint as source
from difftime.study.registry import DERIVED, modules

COMMANDS = ("train", "elbo", "likelihood", "samples")
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
    for cached in (source._parsed, source._source, source._known):
        cached.cache_clear()


def fingerprints() -> dict[str, str]:
    """Of every command, of the tables and of every figure."""
    forget()
    figures = [
        f"figures.{path.stem}" for path in (source.ROOT / "figures").glob("[a-z]*.py") if path.stem != "settings"
    ]
    return {
        name: source.fingerprint(name)
        for name in (
            *(f"study.commands.{name}" for name in COMMANDS),
            "tables.parquet",
            *(entry.module for entry in DERIVED.values()),
            *figures,
        )
    }


def changed(module: Path, old: str, new: str) -> set[str]:
    """Whose fingerprint changes with an edit."""
    before, text = fingerprints(), module.read_text(encoding="utf-8")
    assert old in text
    module.write_text(text.replace(old, new, 1), encoding="utf-8")
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
        module.write_text(module.read_text(encoding="utf-8") + extra, encoding="utf-8")
    assert fingerprints() == before


def test_no_docstring_and_no_layout_matters(package: Path) -> None:
    """Every module is written anew from its syntax tree, with other docstrings and without comments."""
    before = fingerprints()
    for module in package.rglob("*.py"):
        tree = ast.parse(module.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module) and ast.get_docstring(node):
                node.body[0] = ast.Expr(ast.Constant("other words"))
        module.write_text(ast.unparse(ast.fix_missing_locations(tree)), encoding="utf-8")
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


def test_a_command_is_covered_with_what_it_imports_and_no_further(package: Path) -> None:
    assert changed(package / "measures" / "elbo.py", "0.5 * weight", "0.25 * weight") == {"study.commands.elbo"}
    assert changed(package / "measures" / "rk45.py", "MAX_FACTOR = 0.9", "MAX_FACTOR = 0.8") == {
        "study.commands.likelihood",
        "study.commands.samples",
    }
    assert changed(package / "study" / "commands" / "samples.py", "\n\n\n", "\n\nnew = 1\n\n") == {
        "study.commands.samples"
    }
    tables = changed(package / "tables" / "parquet.py", "\n\n\n", "\n\nnew = 1\n\n")
    assert tables >= {"tables.parquet", *(entry.module for entry in DERIVED.values())}
    assert not {name for name in tables if name.startswith("study.commands.")}


def test_what_every_command_rests_on_covers_every_command(package: Path) -> None:
    for module in (
        "diffusion/sde.py",
        "study/cell.py",
        "training/nets/mlp.py",
        "study/commands/common.py",
        "support/streams.py",
    ):
        assert changed(package / module, "\n\n\n", "\n\nnew = 1\n\n") == {f"study.commands.{name}" for name in COMMANDS}


def test_what_reads_the_models_of_others_has_no_part_in_training(package: Path) -> None:
    of_models = changed(package / "models" / "diffusers_folder.py", "index.float()", "index.double()")
    assert of_models == {f"study.commands.{name}" for name in COMMANDS if name != "train"}


@pytest.mark.parametrize("name", sorted(source.NOT_FOLLOWED))
def test_what_changes_no_result_changes_no_fingerprint(package: Path, name: str) -> None:
    place = package / name.replace(".", "/")
    modules = sorted(place.glob("*.py")) or [place.with_suffix(".py")]
    before = fingerprints()
    for module in modules:
        module.write_text(module.read_text(encoding="utf-8") + "\nnew = 1\n", encoding="utf-8")
    assert fingerprints() == before


def test_a_figure_is_covered_with_its_style_and_not_with_its_neighbours(package: Path) -> None:
    figures = {name for name in fingerprints() if name.startswith("figures.")}
    assert changed(package / "figures" / "fig1.py", "\n\n\n", "\n\nnew = 1\n\n") == {"figures.fig1"}
    assert changed(package / "figures" / "style.py", "\n\n\n", "\n\nnew = 1\n\n") == figures


@pytest.mark.parametrize(
    ("file", "old"), [("explore/page.js", "2.5"), ("explore/page.css", "#262626"), ("tables/render.js", "search")]
)
def test_a_page_is_covered_with_the_files_beside_its_module(package: Path, file: str, old: str) -> None:
    before, path = source.fingerprint("study.pages"), package / file
    path.write_text(path.read_text(encoding="utf-8").replace(old, "other", 1), encoding="utf-8")
    forget()
    assert source.fingerprint("study.pages") != before


def test_an_import_inside_a_function_is_followed(package: Path) -> None:
    (package / "late.py").write_text("def f():\n    from difftime.support.streams import stream\n    return stream\n")
    first = source.fingerprint("late")
    (package / "support" / "streams.py").write_text("stream = None\n")
    forget()
    assert source.fingerprint("late") != first


OF_ALL_KINDS = r'''
a = f"", f"plain", f"{{{x}}}", f"a{x=}b", "a" f"{x!r:>{w}.{n}f}" "b" f"", rf"\d{x:%H:%M}", f"{x:}", f"{'a' 'b'}"
b = u"text", b"\xff", "é × \u2192 \U0001fae8 🫨", 1_000, 0x10, 1e400, 1e-5, 1j, ..., None, True, x[1:2, ::3, *y]
@decorated(by=1)
def f(a, /, b=1, *c, d: int = 2, **e) -> int:
    """A docstring."""
    with (a as b, c as d):
        return (yield (z := lambda *x, y=1: x))
class C(B, metaclass=M):
    x: int = 1
    """Of x."""
async def g():
    async with a as b, c:
        return [x async for x in await y if x]
match x:
    case [1, *_] | {"a": None, **rest} | C(x=1) if y:
        pass
try:
    pass
except* A as error:
    raise error from None
'''
"""Whose syntax trees, or their dumps, differ between Pythons."""


def test_the_fingerprint_is_the_same_on_every_python(package: Path) -> None:
    """3.11, 3.12 and 3.13 gave this one."""
    (package / "words.py").write_text(OF_ALL_KINDS, encoding="utf-8")
    assert source.fingerprint("words") == "c9f7350e9814"


@pytest.mark.parametrize("python", [f"python3.{minor}" for minor in range(11, 16)])
@pytest.mark.parametrize("locale", ["C.UTF-8", "C", "en_US.ISO-8859-1"])
def test_other_pythons_and_locales_give_these_fingerprints(python: str, locale: str, package: Path) -> None:
    """Whichever are there; the package has letters outside ASCII in every module."""
    (package / "words.py").write_text(OF_ALL_KINDS, encoding="utf-8")
    program = which(python)
    if program is None or subprocess.run([program, "-c", ""], capture_output=True, check=False).returncode:
        pytest.skip(f"{python} is not there")
    names = ["words", *fingerprints()]
    asked = f"from difftime.study.fingerprint import fingerprint; print(*map(fingerprint, {names}))"
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LC_ALL": locale}
    environment |= {"PYTHONPATH": str(package.parent), "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [program, "-c", asked]
    found = subprocess.run(
        command, env=environment, cwd=package.parent, capture_output=True, text=True, check=True
    ).stdout
    assert found.split() == [source.fingerprint(name) for name in names]


def test_line_ends_of_another_system_change_nothing(package: Path) -> None:
    before = fingerprints()
    for module in package.rglob("*.py"):
        module.write_bytes(module.read_bytes().replace(b"\n", b"\r\n"))
    assert fingerprints() == before


def test_a_job_takes_over_the_fingerprints_of_its_own_files_alone(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it parses nothing; a comment in any file is enough for it to look for itself."""
    own = source.fingerprint("study.commands.train")
    (environment,) = source.handed_on(modules()).items()
    monkeypatch.setenv(*environment)
    forget()
    with monkeypatch.context() as patched:
        patched.setattr(source, "written", lambda _: pytest.fail("a file is read as code"))
        assert source.fingerprint("study.commands.train") == own
    edited = package / "diffusion" / "sde.py"
    text = edited.read_text(encoding="utf-8")
    edited.write_text(text + "\n# a comment\n", encoding="utf-8")
    forget()
    assert source._known() == {}
    assert source.fingerprint("study.commands.train") == own
    edited.write_text(text + "\nnew = 1\n", encoding="utf-8")
    forget()
    with pytest.raises(source.OtherCode):
        source.require(own, "study.commands.train")


def test_a_job_runs_the_code_it_was_planned_with(package: Path) -> None:
    source.require(source.fingerprint("study.commands.train"), "study.commands.train")


def test_a_job_whose_code_was_edited_since_it_was_planned_refuses(package: Path) -> None:
    """Also where the edit is reverted later: the weights of the edited code are never made."""
    planned = source.fingerprint("study.commands.train")
    edited = package / "diffusion" / "sde.py"
    edited.write_text(edited.read_text(encoding="utf-8") + "\nnew = 1\n", encoding="utf-8")
    forget()
    with pytest.raises(source.OtherCode) as error:
        source.require(planned, "study.commands.train")
    said = str(error.value)
    assert "\n" not in said
    assert planned in said
    assert source.fingerprint("study.commands.train") in said
    assert str(package) in said
    assert "run snakemake again" in said
    assert "pip install" in said


def test_two_modules_that_import_each_other_have_a_fingerprint(package: Path) -> None:
    (package / "one.py").write_text("from difftime import other\n")
    (package / "other.py").write_text("import os\nfrom difftime.one import x\n")
    assert source.fingerprint("one") == source.fingerprint("other")


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_package_imports_itself_only_in_the_form_that_is_followed(module: Path) -> None:
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
        if isinstance(node, ast.ImportFrom) and node.module == "difftime":
            names = {alias.name for alias in node.names} - {"__version__"}
            assert all((PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file() for name in names)
        if isinstance(node, ast.Import):
            assert not [alias.name for alias in node.names if alias.name.split(".")[0] == "difftime"]


def test_what_standard_deviations_mean_is_in_the_code_of_every_command(package: Path) -> None:
    """The settings have no arithmetic, as they are in no fingerprint."""
    found = changed(package / "diffusion" / "mixture.py", "std[i] ** 2", "std[i] ** 3")
    assert found >= {f"study.commands.{name}" for name in COMMANDS}
