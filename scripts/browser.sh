#!/bin/sh
# The page in a real browser: installs Debian's chromium and, into an environment of its own, Playwright (200 MB
# together with its driver; it uses this chromium and fetches none), and runs tests/test_web_browser.py.
#
#   EDGEVOICE_SCREENSHOTS=DIR scripts/browser.sh     leaves pictures of the page in DIR
set -eu
cd "$(dirname "$0")/.."
if ! command -v chromium >/dev/null; then
    root=
    test "$(id -u)" = 0 || root=sudo
    $root apt-get install --yes --no-install-recommends chromium fonts-dejavu-core
fi
packages="${EDGEVOICE_CACHE:-$HOME/.cache/edgevoice}/playwright-1.65.2"
test -d "$packages/playwright" ||
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --target "$packages" playwright==1.65.2
PYTHONPATH="$packages" exec .venv/bin/python -m pytest tests/test_web_browser.py "$@"
