"""The peers, installed into .bench: pinned wheels in virtual environments, packages unpacked.

Nothing is installed on the machine. What cannot be had is an error that the rows show.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
BENCH: Final = ROOT / ".bench"
SCRIPTS: Final = HERE / "peers"
TIMEOUT_S: Final = 600
DEBIAN: Final = (
    "nginx", "libnginx-mod-http-lua", "libnginx-mod-http-ndk", "lua-resty-core",
    "lua-resty-lrucache", "libluajit2-5.1-2", "libpcre3", "lua-nginx-redis", "lua-cjson",
)  # fmt: skip


def python(name: str = "peers") -> Path:
    """The Python of the environment `name`, made from `<name>.txt` or `peers-<name>.txt`."""
    wanted = HERE / ("peers.txt" if name == "peers" else f"peers-{name}.txt")
    folder = BENCH / name
    installed = folder / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted.read_text():
        _run([sys.executable, "-m", "venv", "--clear", str(folder)])
        pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "-qq"]
        _run([*pip, "--disable-pip-version-check", "-r", str(wanted)])
        shutil.copy(wanted, installed)
    return folder / "bin" / "python"


def debian() -> Path:
    """The folder into which Debian's packages of nginx with Lua were unpacked."""
    folder = BENCH / "debian"
    done = folder / "done"
    if done.exists() and done.read_text() == " ".join(DEBIAN):
        return folder
    if shutil.which("apt-get") is None:
        raise RuntimeError("no apt-get here, so no nginx with Lua")
    folder.mkdir(parents=True, exist_ok=True)
    _run(["apt-get", "-qq", "download", *DEBIAN], folder)
    for archive in folder.glob("*.deb"):
        _run(["dpkg-deb", "-x", str(archive), "."], folder)
        archive.unlink()
    done.write_text(" ".join(DEBIAN))
    return folder


def _run(words: list[str], folder: Path = ROOT) -> None:
    ended = subprocess.run(
        words, cwd=folder, check=False, capture_output=True, text=True, timeout=TIMEOUT_S
    )
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["no word"])[-1]
        raise RuntimeError(f"{' '.join(words[:4])} …: {last}")
