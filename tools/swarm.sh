#!/bin/bash
# Random scenarios through the simulator, many more than CI has time for. Usage: swarm.sh [SEEDS [FIRST [JOBS]]]
# A million take about 80 minutes of one core. In pieces, so that the log (build/swarm.log, or $LOG) says how far it is; a seed
# that fails is in it and is seen again with `lithos sim --swarm 1 --seed N`. Exit code 1 when any did.
set -uo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-1000000} first=${2:-1} jobs=${3:-$(nproc)} piece=20000
lithos=${LITHOS:-build/dev/bin/lithos} log=${LOG:-build/swarm.log}
[[ -x $lithos ]] || { echo "swarm: no $lithos: build it (make)" >&2; exit 2; }
failed=0
{
    echo "swarm: $seeds seeds from $first, commit $(git rev-parse HEAD 2> /dev/null || echo unknown), $(date -u +%FT%TZ)"
    for ((at = first; at < first + seeds; at += piece)); do
        n=$((first + seeds - at < piece ? first + seeds - at : piece))
        "$lithos" sim --swarm "$n" --seed "$at" --jobs "$jobs" 2>&1 || failed=1
    done
    echo "swarm: done, $(date -u +%FT%TZ): $( ((failed)) && echo "SEEDS FAILED" || echo "none failed")"
} | tee -a "$log"
# the loop ran in a subshell: its verdict is the last line
tail -n 1 "$log" | grep -q 'none failed'
