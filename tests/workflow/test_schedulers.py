"""The profiles of schedulers that are not here, each played by commands that run a job in the background.

What is tested is the profile, its scripts, and the plugin that reads it, but not that a scheduler takes the options.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest
from clones import LINE, ROOT, Clone, clone_of

PROFILES = ROOT / "profiles"
SUBMIT = """#!/usr/bin/env bash
# remembers its options, runs the last argument, and writes down how that ended
set -euo pipefail
here=$(dirname "$0"); id=1; while [ -f "$here/$id.asked" ]; do id=$((id + 1)); done; last="${{@: -1}}"
printf '%s\\n' "${{@: 1: $#-1}}" > "$here/$id.asked"
(setsid bash -c '{run}; echo $? > "$1/$2.ended"' - "$here" "$id" "$last" < /dev/null > "$here/$id.out" 2>&1 &)
echo "{answer}"
"""
ENDED = """#!/usr/bin/env bash
here=$(dirname "$0"); id="${{@: -1}}"; id="${{id%%.*}}"
{say}
"""
PBS = {
    "qsub": SUBMIT.format(run='bash "$3"', answer="$id.server"),
    "qstat": ENDED.format(
        say='if [ ! -f "$here/$id.ended" ]; then echo "    job_state = R"\n'
        'else printf "    job_state = F\\n    Exit_status = $(cat "$here/$id.ended")\\n"; fi'
    ),
}
SGE = {
    "qsub": SUBMIT.format(run='bash "$3"', answer="$id"),
    "qstat": ENDED.format(
        say='[ -f "$here/$id.ended" ] || exit 0\necho "Following jobs do not exist: $id" >&2; exit 1'
    ),
    "qacct": ENDED.format(say='printf "failed       0    \\nexit_status  $(cat "$here/$id.ended")\\n"'),
}
LSF = {
    "bsub": SUBMIT.format(run='bash -c "$3"', answer="Job <$id> is submitted to queue <normal>."),
    "bjobs": """#!/usr/bin/env bash
cd "$(dirname "$0")"
for job in *.asked; do
    id="${job%.asked}"
    if [ ! -f "$id.ended" ]; then echo "$id RUN"
    elif [ "$(cat "$id.ended")" = 0 ]; then echo "$id DONE"
    else echo "$id EXIT"
    fi
done
""",
    "badmin": '#!/bin/sh\nd=$(dirname "$0"); printf "MBD\\nLSB_SHAREDIR = $d\\nLSF_CONFDIR = $d\\n"\n',
    "lsclusters": "#!/bin/sh\nprintf 'CLUSTER_NAME STATUS\\nhere ok\\n'\n",
    "bhist": "#!/bin/sh\nexit 1\n",
}


def play(clone: Clone, commands: dict[str, str]) -> Path:
    """A folder with these commands; Snakemake finds them there."""
    folder = clone.path / "scheduler"
    parameters = folder / "lsbatch" / "here" / "configdir" / "lsb.params"  # LSF's, which its plugin reads
    parameters.parent.mkdir(parents=True)
    parameters.touch()
    for name, text in commands.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def submitted(folder: Path) -> list[list[str]]:
    """The options of every job, in the order in which they came."""
    asked = sorted(folder.glob("*.asked"), key=lambda path: int(path.stem))
    return [path.read_text().splitlines() for path in asked]


def options_of(profile: Path, scheduler: str) -> None:
    """Put the commands of Grid Engine in place of those of PBS, as the profile says."""
    text = profile.read_text()
    if scheduler == "sge":
        text = re.sub(r"^cluster-generic-", "# pbs: ", text, flags=re.MULTILINE)
        text = text.replace("# cluster-generic-", "cluster-generic-")
    profile.write_text(text)


def run(clone: Clone, folder: Path, profile: str) -> None:
    clone.snakemake(
        "--profile", f"profiles/{profile}", "--seconds-between-status-checks", "1", "--latency-wait", "5",
        PATH=f"{folder}{os.pathsep}{os.environ['PATH']}",
    )  # fmt: skip


def same_elbo(one: Clone, other: Clone) -> bool:
    made, there = (of.results / "tables" / "toy" / "elbo.parquet" for of in (one, other))
    return made.read_bytes() == there.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["pbs", "sge"])
def test_cluster_generic(scheduler: str, tmp_path: Path, finished_line) -> None:
    pytest.importorskip("snakemake_executor_plugin_cluster_generic")
    clone = clone_of(tmp_path / "clone", LINE)
    options_of(clone.path / "profiles" / "cluster-generic" / "config.yaml", scheduler)
    folder = play(clone, {"pbs": PBS, "sge": SGE}[scheduler])
    run(clone, folder, "cluster-generic")
    assert same_elbo(clone, finished_line)
    (asked,) = submitted(folder)  # one cell: training and measurement together, and nothing that is not theirs
    wanted = {"pbs": ["select=1:ncpus=1:ngpus=0:mem=1000mb", "walltime=3600"], "sge": ["h_rt=3600", "h_vmem=1000M"]}
    assert set(wanted[scheduler]) <= set(asked), asked


@pytest.mark.slow
def test_lsf(tmp_path: Path, finished_line) -> None:
    pytest.importorskip("snakemake_executor_plugin_lsf")
    clone = clone_of(tmp_path / "clone", LINE)
    profile = clone.path / "profiles" / "lsf" / "config.yaml"
    text = profile.read_text()
    text = re.sub(r"^# (?=set-resources|  - \w+:lsf_extra)", "", text, flags=re.MULTILINE)  # as a user with GPUs does
    profile.write_text(text.replace("'mnist', ", "'toy', ", 1))  # training has one
    folder = play(clone, LSF)
    run(clone, folder, "lsf")
    assert same_elbo(clone, finished_line)
    train, elbo = submitted(folder)
    assert "Snakemake_group_train" in train[1]
    assert {"-W", "30", "-n", "1", "rusage[mem=1000.0]"} <= {*train, *elbo}
    assert "num=1" in train
    assert "num=1" not in elbo


STATUS = {
    "pbs": {
        "running": ("qstat", "    job_state = R", 0),
        "success": ("qstat", "    job_state = F\n    Exit_status = 0", 0),
        "failed": ("qstat", "    job_state = F\n    Exit_status = 271", 0),
        "killed while it waited": ("qstat", "    job_state = F", 0),
        "no record": ("qstat", "qstat: Unknown Job Id 1.server", 153),
        "no answer": ("qstat", "qstat: cannot connect to server", 1),
    },
    "sge": {
        "running": ("qstat", "job_number: 1", 0),
        "cannot start": ("qstat", "error reason 1: error: can't open output file", 0),
        "success": ("qacct", "failed       0    \nexit_status  0", 0),
        "failed": ("qacct", "failed       0    \nexit_status  1", 0),
        "killed": ("qacct", "failed       100 : assumedly after job\nexit_status  137", 0),
        "no answer": ("qstat", "error: commlib error: got select error", 1),
    },
}
MEANS = {
    "killed while it waited": "failed",
    "no record": "failed",
    "no answer": "running",
    "killed": "failed",
    "cannot start": "failed",
}


@pytest.mark.parametrize(("scheduler", "case"), [(name, case) for name, cases in STATUS.items() for case in cases])
def test_what_became_of_a_job(scheduler: str, case: str, tmp_path: Path) -> None:
    command, says, code = STATUS[scheduler][case]
    commands = {"qstat": ("Following jobs do not exist: 1", 1), command: (says, code)}
    for name, (text, exit_code) in commands.items():
        (tmp_path / name).write_text(f"#!/bin/sh\ncat <<'E'\n{text}\nE\nexit {exit_code}\n")
        (tmp_path / name).chmod(0o755)
    ended = subprocess.run(
        [PROFILES / "cluster-generic" / f"{scheduler}-status.sh", "1"], capture_output=True, text=True, check=True,
        env=os.environ | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    assert ended.stdout == f"{MEANS.get(case, case)}\n"
