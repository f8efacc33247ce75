"""What people install: the wheel, the sdist and an editable clone, each in an environment without another difftime."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from difftime import __version__

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.package


def run(*command: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_", "VIRTUAL"))}
    return subprocess.run(
        [*map(str, command)], cwd=cwd, env=clean | environment, capture_output=True, text=True, check=False
    )


def done(*command: str | Path, cwd: Path | None = None, **environment: str) -> str:
    ended = run(*command, cwd=cwd, **environment)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def build(kind: str, source: Path, target: Path) -> Path:
    """The wheel or sdist of a folder, without the network."""
    done(sys.executable, "-m", "hatchling", "build", "-t", kind, "--directory", target, cwd=source)
    (built,) = target.glob({"wheel": "*.whl", "sdist": "*.tar.gz"}[kind])
    return built


def environment(folder: Path, *what: str | Path) -> Path:
    """The commands of a new environment that sees the packages of this one, but of difftime only what is given."""
    venv.create(folder)
    (packages,) = folder.glob("lib/python*/site-packages")
    # a path entry: the packages that lie there are found, pip among them, and editable installs are not
    (packages / "others.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    install = ["install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--force-reinstall"]
    done(folder / "bin/python", "-m", "pip", *install, *what)
    return folder / "bin"


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("sdist", ROOT, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone as people have it, in a folder named difftime."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    return (folder / f"difftime-{__version__}").rename(folder / "difftime")


@pytest.fixture(scope="module")
def wheel(unpacked: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build("wheel", unpacked, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment(tmp_path_factory.mktemp("installed") / "venv", wheel)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    kinds = (".py", ".js", ".css", ".html", ".typed")
    files = {path for path in (ROOT / "difftime").rglob("*") if path.suffix in kinds}
    assert names == {path.relative_to(ROOT).as_posix() for path in files}


def test_the_sdist_builds_the_wheel_of_the_clone(wheel: Path, tmp_path: Path) -> None:
    assert build("wheel", ROOT, tmp_path).read_bytes() == wheel.read_bytes()


def test_a_container_has_the_code_of_the_clone(wheel: Path, tmp_path: Path) -> None:
    """The wheel of what the Containerfile copies, and of nothing else."""
    for line in re.findall(r"^COPY (.+)$", (ROOT / "Containerfile").read_text(encoding="utf-8"), re.MULTILINE):
        *sources, target = line.split()
        for source in map(ROOT.joinpath, sources):
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, tmp_path / target / (source.name if source.is_file() else ""))
    (tmp_path / "built").mkdir()
    assert build("wheel", tmp_path, tmp_path / "built").read_bytes() == wheel.read_bytes()


def test_a_study_can_be_started_from_the_sdist(unpacked: Path) -> None:
    parts = [
        "Snakefile",
        "config.yaml",
        "workflow/Snakefile",
        "workflow/rules",
        "config/smoke.yaml",
        "tests",
        "constraints.txt",
    ]
    assert all((unpacked / part).exists() for part in parts)


def test_the_installed_command_says_its_version(installed: Path, tmp_path: Path) -> None:
    assert done(installed / "difftime", "--version", cwd=tmp_path) == f"{__version__}\n"


def test_what_is_installed_is_imported_from_where_it_was_installed(installed: Path, tmp_path: Path) -> None:
    place = done(installed / "python", "-c", "import difftime; print(difftime.VP, difftime.__file__)", cwd=tmp_path)
    assert str(installed.parent) in place


def test_an_editable_clone_is_imported_in_the_folder_that_holds_it(unpacked: Path, tmp_path: Path) -> None:
    commands = environment(tmp_path / "venv", "--editable", unpacked)
    place = done(commands / "python", "-c", "import difftime; print(difftime.__file__)", cwd=unpacked.parent)
    assert place == f"{unpacked}/difftime/__init__.py\n"
    assert done(commands / "python", "-m", "difftime.cli", "--version", cwd=unpacked.parent) == f"{__version__}\n"


def test_an_environment_that_snakemake_builds_has_the_code_that_is_planned(unpacked: Path, tmp_path: Path) -> None:
    """Conda itself is played by a script that makes an environment with every package but difftime."""
    conda, where = tmp_path / "conda", tmp_path / "elsewhere"
    (conda / "bin").mkdir(parents=True)
    where.mkdir()
    about = json.dumps({"conda_prefix": str(conda), "platform": "linux-64"})
    (conda / "bin/conda").write_text(
        f"""#!/usr/bin/env bash
        case "$*" in
            --version) echo "conda 25.1.0" ;;
            info*) echo '{about}' ;;
            config*) echo '{{"get": {{"channel_priority": "strict"}}}}' ;;
            "env create"*)
                "{sys.executable}" -m venv --without-pip "${{@: -1}}"
                echo "{site.getsitepackages()[0]}" > "$(echo "${{@: -1}}"/lib/python*/site-packages)/others.pth" ;;
            clean*) ;;
            *) exit 1 ;;
        esac
        """,
        encoding="utf-8",
    )
    (conda / "bin/conda").chmod(0o755)
    (conda / "bin/activate").write_text('export PATH="$1/bin:$PATH"\n', encoding="utf-8")
    made = run(
        sys.executable, "-m", "snakemake", "--snakefile", unpacked / "Snakefile", "--configfile",
        unpacked / "config/smoke.yaml", "--sdm", "conda", "--conda-create-envs-only", "--cores", "1", cwd=where,
        PATH=f"{conda}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}", PYTHONPATH=str(unpacked),
        PIP_NO_BUILD_ISOLATION="0", PIP_NO_INDEX="1", PIP_FORCE_REINSTALL="1",
    )  # fmt: skip
    assert made.returncode == 0, made.stdout + made.stderr
    (command,) = where.glob(".snakemake/conda/*/bin/difftime")
    assert done(command, "--version", cwd=where) == f"{__version__}\n"
    place = done(command.parent / "python", "-c", "import difftime; print(difftime.__file__)", cwd=where)
    assert place == f"{unpacked}/difftime/__init__.py\n"
