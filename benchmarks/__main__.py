"""Run every benchmark and print its table."""

from benchmarks import study, training, workflow

for part in (training, workflow, study):
    print(part.main(), flush=True)
