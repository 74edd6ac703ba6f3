#!/usr/bin/env bash
# Installs the Debian packages that building and trying edgevoice needs, if they are missing.
#
#   scripts/debian-packages.sh             install what is missing (through sudo when not root)
#   scripts/debian-packages.sh --list      print what is missing
#
# On other systems it only says what is needed.
set -euo pipefail

packages=(
  build-essential   # C and C++ compilers, make
  cmake             # builds ggml and the native module
  portaudio19-dev   # PyAudio is compiled against it
  mosquitto         # the broker of the demo and the tests
  openssl           # certificates for the tests of TLS
  pulseaudio        # the sound server of the tests, with
  pulseaudio-utils  # pactl and paplay
)
# A Python of Debian's own needs its headers and venv; others (pyenv, conda) bring them.
if [[ "$(command -v "${PYTHON:-python3}")" == /usr/bin/* ]]; then
  packages+=(python3-dev python3-venv)
fi

if ! command -v dpkg-query >/dev/null; then
  for tool in cmake c++ mosquitto; do
    command -v "$tool" >/dev/null || { echo "install what these Debian packages hold: ${packages[*]}" >&2; exit 3; }
  done
  exit 0
fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed ||
    missing+=("$package")
done
[[ ${1:-} != --list ]] || { echo "${missing[*]}"; exit 0; }
[[ ${#missing[@]} -gt 0 ]] || exit 0

install=(apt-get install --yes --no-install-recommends "${missing[@]}")
if [[ $EUID -eq 0 ]]; then
  root=()
elif command -v sudo >/dev/null && { sudo --non-interactive true 2>/dev/null || [[ -t 0 ]]; }; then
  root=(sudo)
else
  echo "these Debian packages are missing; install them and try again: sudo ${install[*]}" >&2
  exit 3
fi
echo "installing Debian packages: ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${root[@]}" apt-get update --quiet --quiet || echo "apt-get update failed; trying with the package lists at hand" >&2
"${root[@]}" "${install[@]}" --quiet --quiet >/dev/null || {
  echo "apt-get could not install them; try by hand: sudo ${install[*]}" >&2
  exit 3
}
