#!/usr/bin/env bash
# Install what is needed, build, and separate the song in demo/ into stems.
set -euo pipefail
cd "$(dirname "$0")/.."
./tools/install_packages.sh
cmake -S . -B build -G Ninja >/dev/null
ninja -C build --quiet bandsaw_program
build/bandsaw separate demo/song.* --model demo/model.safetensors --residual accompaniment -o separated "$@"
