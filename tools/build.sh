#!/bin/bash
# Configure (when not done) and build one preset, or one target of it. Usage: build.sh PRESET [JOBS [TARGET]]
set -euo pipefail
cd "$(dirname "$0")/.."
preset=$1 jobs=${2:-$(nproc)}
if [[ ! -f build/$preset/build.ninja ]]; then
    mkdir -p build
    # a first configuration that fails leaves nothing half done behind
    if ! cmake --preset "$preset" > "build/configure-$preset.log" 2>&1; then
        cat "build/configure-$preset.log" >&2
        rm -rf "build/$preset"
        exit 1
    fi
fi
NINJA_STATUS="[$preset %f/%t] " cmake --build "build/$preset" --parallel "$jobs" --target "${3:-all}"
