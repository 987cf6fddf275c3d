"""Images and containers, made and run by a real engine without a daemon: buildah and podman."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from support.machine import Machine, run

# As compose.yaml and the Kubernetes base have them: nothing of the root may be written to.
_HARDENED: Final = (
    "--read-only", "--read-only-tmpfs=false", "--tmpfs=/tmp",
    "--cap-drop=ALL", "--security-opt=no-new-privileges",
)  # fmt: skip
# Control groups are the engine's to manage, and the machine's to have; neither is tried here.
# Limits at which a process starts may not be raised everywhere.
_HERE: Final = (
    "--cgroups=disabled", "--network=host", "--pull=never",
    "--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096",
)  # fmt: skip
# One that runs as the machine's first process and does nothing but reap.
_IDLE: Final = """
mount -t cgroup2 none /sys/fs/cgroup
exec bash -c 'while :; do sleep 3600 & wait $!; done'
"""
_STOP_S: Final = 120


class Images:
    """A store of images in a folder of its own; it may be used here and in a machine."""

    def __init__(self, folder: Path) -> None:
        self.options = (
            f"--root={folder}/images", f"--runroot={folder}/run", "--storage-driver=vfs",
        )  # fmt: skip

    def import_root(self, tar: Path, name: str) -> None:
        """An image of a file system, as a registry would have it under this name."""
        path = "ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
        run("podman", *self.options, "import", "--quiet", "--change", path, tar, name)

    def build(self, context: Path, dockerfile: Path, name: str, *options: str) -> None:
        """Builds with the network and the certificate authorities of this machine."""
        run(
            "buildah", *self.options, "build", "--quiet", "--isolation=chroot", "--format=docker",
            "--pull-never", "--volume=/etc/ssl/certs:/etc/ssl/certs:ro", *options,
            "--file", dockerfile, "--tag", name, context,
            bound_s=900,
        )  # fmt: skip

    def inspect(self, name: str) -> dict[str, Any]:
        """What a container of it starts with: user, command, environment and so on."""
        (found,) = json.loads(run("podman", *self.options, "image", "inspect", name))
        config: dict[str, Any] = found["Config"]
        return config

    def root(self, name: str) -> Path:
        """Where its files are; with this storage driver they need no mount."""
        return Path(run("podman", *self.options, "image", "mount", name).strip())


class Container:
    """One that was started."""

    def __init__(self, machine: Machine, engine: Sequence[str], name: str) -> None:
        self._machine = machine
        self._engine = engine
        self._name = name

    def podman(self, *command: str) -> str:
        """What a command of the engine, which ends with this container's name, prints."""
        return self._machine.run(*self._engine, *command, self._name)

    def run(self, *command: str) -> str:
        """What a command in it, by its user, prints."""
        return self._machine.run(*self._engine, "exec", self._name, *command)

    def succeeds(self, *command: str) -> bool:
        """Whether a command in it ends with 0."""
        return self._machine.succeeds(*self._engine, "exec", self._name, *command)

    def is_healthy(self) -> bool:
        """What its own HEALTHCHECK finds now."""
        return self._machine.succeeds(*self._engine, "healthcheck", "run", self._name)

    @property
    def log(self) -> str:
        """What it printed and logged so far."""
        return self._machine.run("sh", "-c", '"$@" 2>&1', "sh", *self._engine, "logs", self._name)

    @property
    def writable(self) -> set[str]:
        """What its processes may write to: the mounts that are not read-only, but the kernel's."""
        mounts = [line.split() for line in self.run("cat", "/proc/self/mounts").splitlines()]
        kernels = re.compile(r"/(dev|proc|sys)(/.*)?")
        return {
            place
            for _, place, _, options, *_ in mounts
            if "rw" in options.split(",") and not kernels.fullmatch(place)
        }

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        self.podman("stop", f"--time={_STOP_S}")
        return int(self.podman("inspect", "--format={{.State.ExitCode}}"))


class Engine:
    """Runs containers of some images, in a machine of their own."""

    def __init__(self, images: Images, folder: Path) -> None:
        self.machine = Machine(folder, _IDLE)
        self._podman = ("podman", *images.options)
        self._started: list[str] = []

    def start(
        self, image: str, *command: str, name: str, options: Sequence[str] = (), **environ: str
    ) -> Container:
        """A container with the settings `environ`, by their names without the prefix."""
        settings = [f"--env=NB_BRIDGE_{key}={value}" for key, value in environ.items()]
        self._started.append(name)
        self.machine.run(
            *self._podman, "run", "--detach", f"--name={name}", *_HERE, *_HARDENED, *options,
            *settings, image, *command,
        )  # fmt: skip
        return Container(self.machine, self._podman, name)

    def remove_all(self) -> None:
        """Nothing of what was started is left, nor of what it kept."""
        for name in reversed(self._started):
            self.machine.succeeds(*self._podman, "rm", "--force", "--volumes", "--time=0", name)
        self._started.clear()

    def close(self) -> None:
        """Ends the machine."""
        self.machine.close()
