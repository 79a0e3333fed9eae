#!/usr/bin/env bash
# Install the Debian packages that bandsaw builds and tests with. Needs root, or sudo.
set -euo pipefail
packages=(build-essential cmake ninja-build pkg-config libfftw3-dev libsndfile1-dev libsamplerate0-dev
          portaudio19-dev libyaml-dev libjansson-dev libzip-dev librubberband-dev libcmocka-dev)
missing=()
for p in "${packages[@]}"; do
    dpkg-query -W -f='${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi
echo "installing: ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    as_root=(sudo)
fi
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
