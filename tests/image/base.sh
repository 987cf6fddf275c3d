#!/usr/bin/env bash
# base.sh SUITE TAR TREE
#
# Makes, of Debian's packages, what the official image `python:3.x-slim-SUITE` is as far as
# deploy/Dockerfile can tell, with SUITE's own Python: TAR, for where no registry of images can be
# reached. And TREE, the same with systemd in it, a folder that can be booted. Needs root; the packages
# come from where this machine has its own, or else from where mmdebstrap has them.
set -euo pipefail
suite="$1" tar="$2" tree="$3"

mirror="$(apt-get indextargets --format '$(REPO_URI)' \
    'Created-By: Packages' 'Origin: Debian' 'Label: Debian' 'Component: main' | head -n 1)"

# As in the official image, `python` and `pip` are in /usr/local/bin, and pip may install beside the
# system's packages. Debian's own pip cannot be replaced by a newer one, as the Dockerfile does; so it
# comes from Debian's wheel of it.
# shellcheck disable=SC2016 # these run where mmdebstrap knows what $1 is: the root of what it makes
hooks=(
    --customize-hook='rm "$1"/usr/lib/python3*/EXTERNALLY-MANAGED'
    --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"'
    --customize-hook='chroot "$1" sh -ec "
        wheel=\$(echo /usr/share/python-wheels/pip-*.whl)
        python \$wheel/pip install -q --no-index --root-user-action ignore \$wheel"'
    --customize-hook="tar -C \"\$1\" -cf '$tar' --one-file-system \
        --exclude='./var/lib/apt/lists/*' --exclude='./var/cache/apt/*' --exclude='./dev/*' ."
    --customize-hook='APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get -qq --yes \
        -o DPkg::Chroot-Directory="$1" install systemd-sysv libnss-systemd >/dev/null'
)

rm -rf "$tar" "$tree"
mmdebstrap --quiet --mode=root --variant=essential --format=directory \
    --include=passwd,python3,python3-pip-whl,ca-certificates \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt=force-unsafe-io \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    "${hooks[@]}" \
    "$suite" "$tree" ${mirror:+"deb $mirror $suite main"}
