"""A machine that systemd has booted, from a root of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

from support.machine import Machine
from support.waiting import wait_until_sync

# $1 is the root. What the machine writes to it stays there, so it is its own; /opt/nb-bridge is $2.
# The kernel's parameters are everybody's, so they are not to be written to. Mounts are shared, as
# systemd itself has them outside of containers: credentials reach a unit as a mount.
_BOOT: Final = """
cd "$1"
mount --bind . .
cd "$1"
mkdir -p opt/nb-bridge old
mount --bind -o ro "$2" opt/nb-bridge
mount -t proc proc proc
mount --bind -o ro proc/sys proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs -o mode=755 run run
mount -t tmpfs tmp tmp
mount -t tmpfs -o mode=755 dev dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
pivot_root . old
umount --lazy /old
mount --make-rshared /
exec env -i container=other PATH=/usr/sbin:/usr/bin /lib/systemd/systemd --unit=multi-user.target
"""
_BOOTED: Final = {"running", "degraded"}


class BootedMachine(Machine):
    """Its first process is systemd; returns when it has started what a system starts."""

    def __init__(self, folder: Path, root: Path, installed: Path) -> None:
        super().__init__(folder, _BOOT, root, installed)
        try:
            wait_until_sync(self._is_up, "systemd to have started")
        except BaseException:
            self.close()
            raise

    def _is_up(self) -> bool:
        # Before systemd is there to be asked, anything may come of it.
        asked = subprocess.run(
            self.inside("systemctl", "is-system-running"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,  # 1, unless it is `running`
        )
        return asked.stdout.strip() in _BOOTED

    def show(self, unit: str, *properties: str) -> dict[str, str]:
        """Properties of a unit."""
        said = self.run("systemctl", "show", unit, f"--property={','.join(properties)}")
        return dict(line.split("=", 1) for line in said.splitlines())

    def said(self, unit: str) -> str:
        """What a unit's processes wrote."""
        return self.run("journalctl", "--no-pager", "--output=cat", f"--unit={unit}")
