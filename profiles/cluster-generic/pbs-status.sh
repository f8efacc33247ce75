#!/usr/bin/env bash
# What became of a PBS job: running, success or failed. An end that PBS keeps no record of is a failure.
set -euo pipefail
if said=$(qstat -x -f "$1" 2>&1); then
    if ! grep -qE 'job_state = [FCX]' <<< "$said"; then echo running
    elif grep -qE '[Ee]xit_status = 0$' <<< "$said"; then echo success
    else echo failed
    fi
elif grep -qi 'unknown job' <<< "$said"; then echo failed
else echo running   # the server did not answer: ask again
fi
