#!/usr/bin/env bash
# Install into an empty folder, then build the consumer against it with CMake and with pkg-config.
#   run.sh SOURCE BUILD C_FLAGS
set -euo pipefail
source=$1 build=$2 flags=${3:-}
prefix=$(mktemp -d)
trap 'rm -rf "$prefix"' EXIT
cmake --install "$build" --prefix "$prefix" >/dev/null
cmake -S "$source/tests/consumer" -B "$prefix/cmake-build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_C_FLAGS="$flags" >/dev/null
cmake --build "$prefix/cmake-build" >/dev/null
pc=$(find "$prefix" -name bandsaw.pc -printf '%h')
sed -i "s|^prefix=.*|prefix=$prefix|" "$pc/bandsaw.pc"
export PKG_CONFIG_PATH="$pc"
# shellcheck disable=SC2046,SC2086
cc $flags "$source/examples/separate.c" -o "$prefix/separate" $(pkg-config --cflags --libs bandsaw)
for program in "$prefix/cmake-build/separate" "$prefix/separate"; do
    if "$program" /nonexistent.ckpt </dev/null 2>"$prefix/error"; then
        echo "$program: accepted a checkpoint that is not there"
        exit 1
    fi
    grep -q nonexistent.ckpt "$prefix/error"
done
test "$("$prefix/bin/bandsaw" --version)" = "bandsaw $(sed -n 's/#define BANDSAW_VERSION  *"\(.*\)"/\1/p' "$source/src/bandsaw.h")"
echo "1 passed, 0 failed"
