"""`make screenshots`: docs/images/console-*.png, which README.md shows, of traffic that is real.

Ten minutes by default, so that the plot of the overview is full: an ingress, two groups of workers
whose receiver fails now and then, a console, and Chromium before it.
"""

from __future__ import annotations

import argparse
import http.client
import io
import itertools
import math
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from PIL import Image
from playwright.sync_api import FloatRect, Page, ViewportSize, expect

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bridge.store.embedded import EmbeddedServer  # noqa: E402
from support import browser  # noqa: E402
from support.browser import Visit  # noqa: E402
from support.ingresses import body  # noqa: E402
from support.installation import Installation  # noqa: E402
from support.programs import Programs  # noqa: E402

IMAGES: Final = ROOT / "docs" / "images"
MAX_BYTES: Final = 200_000
SIZE: Final = ViewportSize(width=1180, height=800)
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
STATUSES: Final = ("SENT", "DELIVERED", "SUCCESSFUL")
DEVICES: Final = 120
SHOWN_DEVICE: Final = "meter-0c41"
SHOWN_COMMAND: Final = "set-tariff-7f3a9d2e"
RECEIVERS: Final = {
    "shop": """
from consumers import PushMessageReceiver, request

class Receiver(PushMessageReceiver):
    def handleNBCommandStateChanged(self):
        if request.json["deviceId"].endswith("3d"):
            raise KeyError("tariff")
""",
    "billing": """
from consumers import PushMessageReceiver, delivery, request

class Receiver(PushMessageReceiver):
    def handleNBCommandStateChanged(self):
        device, status = request.json["deviceId"], request.json["result"]["resultCode"]
        if device == "meter-0c41" and status == "DELIVERED" and delivery.attempt < 3:
            raise TimeoutError("billing.example.com does not answer")
        if device == "meter-0c41" and status == "SUCCESSFUL":
            raise ConnectionRefusedError("billing.example.com refuses: closed for the night")
""",
}


def main() -> int:
    """Exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="nb-bridge-") as name:
        programs = Programs(Path(name))
        server = EmbeddedServer(Path(name) / "valkey", appendfsync=None)
        server.start()
        try:
            take(Installation(server, programs, namespace="nbcmd"), asked.minutes)
        finally:
            programs.kill_all()
            server.stop()
    return 0


def take(installation: Installation, minutes: float) -> None:
    """Starts everything, has traffic go by, and takes the pictures."""
    installation.start_ingress()
    for group, source in RECEIVERS.items():
        installation.start_worker(
            source, group=group, max_attempts=4, backoff_base_s=5, backoff_max_s=600
        )
    console = installation.start_console(console_actions="off")
    traffic = threading.Thread(target=send, args=(installation.callback_url, minutes * 60))
    with browser.opened() as opened:
        user = Visit(opened, console.url, viewport=SIZE, device_scale_factor=2)
        page = user.page()
        page.goto("/")  # while somebody looks the plot is finest
        traffic.start()
        traffic.join()
        shoot(page, "console-overview")
        page.goto(f"/commands/{SHOWN_COMMAND}")
        expect(page.get_by_role("main")).to_contain_text("closed for the night")
        shoot(page, "console-timeline")
        user.check()


def send(url: str, for_s: float) -> None:
    """Callbacks as a platform sends them: commands of many devices, some more at times."""
    dice = random.Random(7)
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    began_s = time.monotonic()
    shown = iter(((0.55, "SENT"), (0.7, "DELIVERED"), (0.93, "SUCCESSFUL"), (9.9, "")))
    due, status = next(shown)
    for number in itertools.count():
        gone = (time.monotonic() - began_s) / for_s
        if gone >= 1:
            return
        if gone >= due:
            post(connection, parts.path, body(SHOWN_DEVICE, SHOWN_COMMAND, status))
            due, status = next(shown)
        # Of commands that were begun a while ago the last status comes among the first of others.
        command = number // 3
        device = f"meter-{command * 37 % DEVICES:04x}"
        post(connection, parts.path, body(device, f"c-{command}", STATUSES[number % 3]))
        rate = 14 + 8 * math.sin(gone * 9) + (25 if 0.6 < gone < 0.68 else 0)
        time.sleep(dice.expovariate(1) / rate)


def post(connection: http.client.HTTPConnection, path: str, raw: bytes) -> None:
    """One callback, answered 200."""
    connection.request("POST", path, raw)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200


def shoot(page: Page, name: str) -> None:
    """A picture in each colour scheme, in few colours, so that it is small."""
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        end = page.get_by_role("contentinfo").bounding_box()
        assert end is not None
        height = min(end["y"], SIZE["height"])
        clip = FloatRect(x=0, y=0, width=SIZE["width"], height=height)
        picture = Image.open(io.BytesIO(page.screenshot(clip=clip))).convert("RGB")
        file = IMAGES / f"{name}-{scheme}.png"
        picture.quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)
        size = file.stat().st_size
        print(f"{file.relative_to(ROOT)}: {size} bytes")
        assert size <= MAX_BYTES, f"{file} has more than {MAX_BYTES} bytes"


if __name__ == "__main__":
    sys.exit(main())
