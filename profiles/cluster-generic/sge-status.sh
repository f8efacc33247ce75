#!/usr/bin/env bash
# What became of a Grid Engine job: running, success or failed. An end without a record within half a minute is a failure.
set -euo pipefail
for _ in {1..15}; do
    if said=$(qstat -j "$1" 2>&1); then
        if grep -q '^error reason' <<< "$said"; then echo failed; else echo running; fi   # state Eqw waits for ever
        exit
    fi
    if ! grep -qi 'do not exist' <<< "$said"; then echo running; exit; fi   # the server did not answer: ask again
    if said=$(qacct -j "$1" 2> /dev/null); then
        if grep -qE '^failed +0\b' <<< "$said" && grep -qE '^exit_status +0\b' <<< "$said"; then echo success
        else echo failed
        fi
        exit
    fi
    sleep 2   # the record of an end comes some seconds after it
done
echo failed
