#!/usr/bin/env bash
# Installs edgevoice from this checkout as a service, on Raspberry Pi OS (64 bit) or Debian, 12 or newer.
#
#   sudo deploy/raspberrypi/install.sh                     install, or bring up to date
#   sudo deploy/raspberrypi/install.sh --device USB        the microphone whose name contains this
#   sudo deploy/raspberrypi/install.sh --model base        another model; NAME-q8_0 is NAME, made half as large
#   sudo deploy/raspberrypi/install.sh --yes               ask nothing: the default microphone, no spoken try
#   deploy/raspberrypi/install.sh --dry-run                print what would be done, and do nothing
#   sudo deploy/raspberrypi/install.sh --uninstall         remove it; configuration and models stay
#   sudo deploy/raspberrypi/install.sh --uninstall --purge     and remove these, and the user
#
# What it makes: /opt/edgevoice (Python environment), /usr/local/bin/edgevoice (the command), /etc/edgevoice
# (configuration), /var/lib/edgevoice (models), /var/cache/edgevoice (whisper.cpp, for the next update), the user
# edgevoice, and edgevoice.service. It may be run again at any time: what is there stays, and a configuration is
# changed in what --device and --model say, and nothing else.
#
# DESTDIR=DIR with --dry-run looks at DIR in place of / (for tests).
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$(cd "$here/../.." && pwd)
root=${DESTDIR:-}
home=/opt/edgevoice
config=/etc/edgevoice/edgevoice.yaml
state=/var/lib/edgevoice
cache=/var/cache/edgevoice
unit=/etc/systemd/system/edgevoice.service
command=/usr/local/bin/edgevoice

packages=(
  build-essential  # C and C++ compilers
  cmake            # builds ggml and the native module
  portaudio19-dev  # PyAudio is compiled against it
  python3-dev      # headers
  python3-venv
  alsa-utils       # alsamixer and arecord, for who sets up a microphone
)

# A board of 512 MB tells less than 500,000 kB, one of 1 GB more than 900,000.
small_kb=700000

die() {
  echo "install.sh: $1" >&2
  exit "${2:-1}"
}

say() { echo "== $*"; }

# Does what it is given, or only says so.
run() {
  printf '   %s\n' "$*"
  [[ -n $dry_run ]] || "$@"
}

# Writes its input to a file, mode first.
write() {
  printf '   write %s\n' "$2"
  if [[ -n $dry_run ]]; then cat >/dev/null; else install -D -m "$1" /dev/stdin "$2"; fi
}

usage() {
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
}

dry_run='' uninstall='' purge='' device='' model='' yes=''
while [[ $# -gt 0 ]]; do
  case $1 in
    --dry-run) dry_run=1 ;;
    --uninstall) uninstall=1 ;;
    --purge) purge=1 ;;
    --yes) yes=1 ;;
    --device | --model)
      [[ -n ${2:-} ]] || die "$1 needs a name" 2
      # They stand in quotes in the configuration, and in a sed expression.
      [[ $2 != *[\"\\\&/]* && $2 != *[[:cntrl:]]* ]] || die "$1: $2 seen; quotes, &, / and \\ are not allowed; give a shorter part of the name" 2
      if [[ $1 == --device ]]; then device=$2; else model=$2; fi
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    *) die "unknown option $1; see --help" 2 ;;
  esac
  shift
done
[[ -z $purge || -n $uninstall ]] || die "--purge goes with --uninstall only" 2
[[ -z $root || -n $dry_run ]] || die "DESTDIR goes with --dry-run only" 2
# The Debian package (deploy/debian) has the same unit, user and configuration; what is left of it counts, too.
if package=$(dpkg-query --admindir="$root/var/lib/dpkg" --show --showformat='${db:Status-Status}' edgevoice 2>/dev/null) &&
  [[ $package != not-installed ]]; then
  die "edgevoice is here as a Debian package ($package); keep that, or remove it first: sudo apt purge edgevoice (configuration and models go, too)"
fi
[[ -n $dry_run || $EUID -eq 0 ]] || die "root is needed; try: sudo $0 (or --dry-run to see what it would do)" 2

remove() {
  say "removing the service and the program"
  [[ ! -e $root$unit ]] || run systemctl disable --now edgevoice.service
  run rm -rf "$unit" "$command" "$home" "$cache"
  run systemctl daemon-reload
  if [[ -z $purge ]]; then
    say "kept: $(dirname "$config"), $state and the user edgevoice (--purge removes them)"
  else
    say "removing configuration, models and the user"
    run rm -rf "$(dirname "$config")" "$state" "$unit.d"
    if [[ -n $dry_run ]] || id edgevoice >/dev/null 2>&1; then run userdel edgevoice; fi
  fi
  say "Debian packages stay: ${packages[*]}"
}

look() {
  board=$(uname -m)
  [[ ! -r $root/proc/device-tree/model ]] || board=$(tr -d '\0' <"$root/proc/device-tree/model")
  memory_kb=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' "$root/proc/meminfo")
  cores=$(grep -c '^processor' "$root/proc/cpuinfo" || true)
  [[ $cores -gt 0 ]] || cores=1
  case $(uname -m) in
    armv6l) die "this processor has no NEON, which edgevoice needs; take a Raspberry Pi Zero 2 W, 3 or newer" ;;
    armv7l) say "a 32-bit system: the 64-bit one is faster on the same board" ;;
  esac
  small=''
  [[ $memory_kb -ge $small_kb ]] || small=1
  # In 8 bits the model hears as well (README.md). It is for small boards, and for processors with dot products of
  # bytes, as of the 5, where it takes about half the instructions; elsewhere it takes more of them (docs/boards.md).
  wanted=tiny.en
  if [[ -n $small ]] || grep -q '^Features.* asimddp' "$root/proc/cpuinfo"; then wanted=tiny.en-q8_0; fi
  [[ -z $model ]] || wanted=$model
  # Threads stay what edgevoice takes itself, one core less than there are: nothing else was measured on a board.
  say "$board: $((memory_kb / 1024)) MB of memory, $cores cores"
  say "model $wanted"
}

install_packages() {
  say "Debian packages"
  export DEBIAN_FRONTEND=noninteractive
  run apt-get update -qq
  run apt-get install -qq --yes --no-install-recommends "${packages[@]}"
}

install_user() {
  say "the user edgevoice, who may record"
  if [[ -n $dry_run ]] || ! id edgevoice >/dev/null 2>&1; then
    run useradd --system --user-group --home-dir "$state" --no-create-home --shell /usr/sbin/nologin edgevoice
  fi
  run usermod --append --groups audio edgevoice
  run install -d -o edgevoice -g edgevoice -m 755 "$state" "$state/models"
}

install_program() {
  say "the program, compiled for this board"
  [[ -x $root$home/bin/python ]] || run python3 -m venv "$home"
  # One compiler at a time where two would not have room.
  local jobs=$cores
  [[ -z $small ]] || jobs=1
  # From a copy, lest root's files are left in the checkout of somebody else.
  run rm -rf "$cache/source"
  run mkdir -p "$cache/source"
  run cp -r "$source"/{LICENSE,README.md,pyproject.toml,build_native.py,csrc,edgevoice,grammars} "$cache/source"
  run env EDGEVOICE_CACHE="$cache" EDGEVOICE_JOBS="$jobs" \
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --upgrade "$cache/source[web,home-assistant]"
  run rm -rf "$cache/source"
  write 755 "$command" <<WRAPPER
#!/bin/sh
# edgevoice with the models of the service.
export EDGEVOICE_MODELS="\${EDGEVOICE_MODELS:-$state/models}"
exec $home/bin/edgevoice "\$@"
WRAPPER
}

install_model() {
  say "the model $wanted"
  # As the service, which fetches another one when that is configured.
  run runuser -u edgevoice -- "$command" models pull --quiet "$wanted"
}

choose_device() {
  [[ -z $device && -z $dry_run && -z $yes && -t 0 ]] || return 0
  say "microphones"
  "$command" devices || true
  read -r -p "   part of the name of yours (nothing: the default): " device
  [[ $device != *[\"\\\&/]* ]] || die "$device: quotes, &, / and \\ are not allowed; give a shorter part of the name" 2
}

# Sets a key of the configuration, which is in it once.
set_key() {
  grep -q "^  $1: " "$root$config" 2>/dev/null || [[ -n $dry_run ]] ||
    die "$config has no line '  $1: ...'; put $1: \"$2\" where it belongs, and run this again without the option"
  run sed -i "s/^  $1: .*/  $1: \"$2\"/" "$config"
}

install_config() {
  say "the configuration"
  if [[ -e $root$config ]]; then
    say "$config stays as it is"
    [[ -z $model ]] || set_key name "$model"
  else
    run install -D -m 644 "$here/edgevoice.yaml" "$config"
    choose_device
    set_key name "$wanted"
  fi
  [[ -z $device ]] || set_key device "$device"
  run "$command" config check --config "$config"
}

# The program as it is installed, with the model and the home grammar, whatever is configured.
try_recording() {
  say "a recorded command: \"turn on the desk lamp\""
  local said
  said=$(run "$command" recognize --config "$here/edgevoice.yaml" --model "$wanted" \
    --grammar "$source/grammars/home.yaml" "$source/samples/turn-on-desk-lamp.flac")
  echo "$said"
  [[ -n $dry_run || $said == *"-> HassTurnOn name=desk lamp"* ]] ||
    die "the program does not understand its own recording; see what $command doctor --config $config says"
}

try_speaking() {
  [[ -z $yes && -z $dry_run && -t 0 && -t 1 ]] && "$command" devices >/dev/null 2>&1 || return 0
  local answer
  read -r -p "   try the microphone: say commands for 20 seconds? [Y/n] " answer
  [[ $answer != [nN]* ]] || return 0
  run runuser -u edgevoice -- timeout --foreground 20 "$command" listen --config "$config" || true
}

install_service() {
  say "the service"
  run install -m 644 "$here/edgevoice.service" "$unit"
  run systemctl daemon-reload
  # While it runs it has the microphone, which is to be checked; it starts below.
  run systemctl stop edgevoice.service
  say "what edgevoice doctor says"
  run runuser -u edgevoice -- "$command" doctor --config "$config" ||
    say "the service starts all the same: what is marked 'fail' may come later, as a microphone"
  try_recording
  try_speaking
  run systemctl enable edgevoice.service
  run systemctl restart edgevoice.service
  say "say a command and watch: journalctl --follow --unit edgevoice"
}

if [[ -n $uninstall ]]; then
  remove
else
  look
  install_packages
  install_user
  install_program
  install_model
  install_config
  install_service
fi
say "done${dry_run:+: nothing was changed}"
