#!/bin/bash
# Our C sources and headers, one a line. Usage: sources.sh [FOLDER...]
set -euo pipefail
cd "$(dirname "$0")/.."
[[ $# -gt 0 ]] || set -- src samples tests bench
find "$@" -type f \( -name '*.c' -o -name '*.h' \) | sort
