#!/usr/bin/env bash
# Install what is needed, build with warnings as errors and run all tests; with --full also under sanitizers.
#   GOLDEN=folder      run the large golden cases too
#   CHECKPOINTS=folder read the real checkpoints in it too
set -euo pipefail
cd "$(dirname "$0")/.."
./tools/install_packages.sh
options=(-G Ninja -DSAW_GOLDEN_DIR="${GOLDEN:-}" -DSAW_CHECKPOINT_DIR="${CHECKPOINTS:-}")
cmake -S . -B build "${options[@]}" >/dev/null
ninja -C build --quiet
ctest --test-dir build --output-on-failure -j "$(nproc)"
if [ "${1:-}" = --full ]; then
    cmake -S . -B build-sanitize "${options[@]}" -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g1" \
        -DSAW_SANITIZE=address,undefined >/dev/null
    ninja -C build-sanitize --quiet
    ctest --test-dir build-sanitize --output-on-failure -j "$(nproc)"
fi
