"""No secret and no payload is in what the programs print, whatever happens to them.

Every secret and every payload here has the same word in it. Real programs meet traffic of all
kinds, handlers that quote the payload, an outage, and wrong settings; then all that they printed,
answered and were started with is searched for the word.
"""

from __future__ import annotations

import base64
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from bridge import cli
from bridge.contract.keys import Keys
from bridge.store.embedded import EmbeddedServer
from support import quoting
from support.ingresses import raw_exchange
from support.programs import Program, Programs, descendants
from support.waiting import wait_until_sync

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

WORD = "hush"
PAIR = f"platform:{WORD}-basic"
SECRETS = {
    "NB_BRIDGE_BASIC_CREDENTIALS": PAIR,
    "NB_BRIDGE_SECRET_HEADERS": f"X-Secret:{WORD}-header",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",  # nobody is there
    "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{WORD}-collector",
}
TOKEN = f"{WORD}-token"
PASSWORD = f"{WORD}-redis"
PAYLOAD = f"{WORD}-payload"
CODED = tuple(base64.b64encode(it.encode()).decode() for it in (PAIR, f"wrong:{WORD}-basic"))

WRONG_URLS = [
    f"tcp://:{WORD}@127.0.0.1:1",
    f"http://:{WORD}@127.0.0.1:1",
    f"redis://:{WORD}@127.0.0.1:{WORD}/0",
    f"redis://:12/{WORD}@127.0.0.1/0",
    f"redis://127.0.0.1:1/0?{WORD}={WORD}",
    f"redis+sentinel://:12/{WORD}@127.0.0.1:1/primary",
    f"redis+sentinel://:{WORD}@127.0.0.1:1?sentinel_password={WORD}",
    f"redis+cluster://:{WORD}#{WORD}@127.0.0.1:1",
]
"""None of them can be used."""

REFUSED_URLS = [
    f"redis://:{WORD}-wrong@127.0.0.1:{{port}}",
    f"redis://{WORD}:{WORD}@127.0.0.1:{{port}}",
    f"redis+sentinel://:{WORD}@127.0.0.1:{{port}}/primary?sentinel_password={WORD}",
    f"redis+cluster://:{WORD}@127.0.0.1:{{port}}",
]
"""A server with another password is there."""


def leaks(text: str) -> list[str]:
    """The lines with a secret or a payload in them."""
    wanted = re.compile("|".join([WORD, *map(re.escape, CODED)]), re.IGNORECASE)
    return [line for line in text.splitlines() if wanted.search(line)]


@pytest.mark.parametrize("text", [f"a {TOKEN}", f'{{"error": "{PAYLOAD}"}}', *CODED, WORD.upper()])
def test_a_leak_is_found(text: str) -> None:
    assert leaks(f"before\n{text}\nafter") == [text]


def notification(do: str, **more: Any) -> bytes:
    """A command's status with the word wherever it may be."""
    result = {"resultCode": "SENT", "resultDetail": {"do": do, "text": PAYLOAD}}
    ids = {"deviceId": f"device-{do}", "commandId": do}
    return json.dumps({**ids, "result": result, PAYLOAD: PAYLOAD, **more}).encode()


def other(do: str) -> bytes:
    """One of the platform's other notifications."""
    told = {"notifyType": "deviceDataChanged", "deviceId": f"other-{do}", "do": do, "x": PAYLOAD}
    return json.dumps(told).encode()


NO_NOTIFICATIONS = [
    f'{{"{PAYLOAD}": '.encode(),
    f'{{"deviceId": "d", "{PAYLOAD}": NaN}}'.encode(),
    f'["{PAYLOAD}"]'.encode(),
    b'{"deviceId": "' + PAYLOAD.encode() + b'\xff"}',
    json.dumps({"deviceId": [PAYLOAD], "commandId": {PAYLOAD: 1}, "result": PAYLOAD}).encode(),
    json.dumps({"deviceId": "d" * 300, "result": {"resultCode": PAYLOAD * 20}}).encode(),
]


class Stage:
    """An ingress and two workers with every kind of secret, and all that was seen of them."""

    def __init__(self, server: EmbeddedServer, programs: Programs) -> None:
        self._server = server
        self._programs = programs
        self.folder = programs.folder
        self.answers: list[str] = []
        (self.folder / "tokens").write_text(f"{TOKEN},{TOKEN}-2")
        self.environ = {
            **SECRETS,
            "NB_BRIDGE_TOKENS_FILE": str(self.folder / "tokens"),
            "NB_BRIDGE_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{server.port}/0",
            "NB_BRIDGE_HOST": "127.0.0.1",
            "NB_BRIDGE_PORT": "0",
            "NB_BRIDGE_ADMIN_PORT": "0",
            "NB_BRIDGE_LOG_LEVEL": "debug",
            "NB_BRIDGE_LOG_FORMAT": "json",
            "NB_BRIDGE_PARTITIONS": "4",
            "NB_BRIDGE_LEASE_TTL_S": "1",
            "NB_BRIDGE_CONCURRENCY": "16",
            "NB_BRIDGE_SPOOL_DIR": str(self.folder / "spool"),
            "NB_BRIDGE_MAX_ATTEMPTS": "2",
            "NB_BRIDGE_GIVE_UP_AFTER_S": "0",
            "NB_BRIDGE_BACKOFF_BASE_S": "0.05",
            "NB_BRIDGE_BACKOFF_MAX_S": "0.05",
            "NB_BRIDGE_HANDLER_TIMEOUT_S": "0.5",
            "NB_BRIDGE_RECEIVER": quoting.RECEIVER,
        }
        self.require_password()

    def start(self) -> None:
        """The programs; the ingress listens."""
        self.ingress = self._programs.start("serve", environ=self.environ)
        console = {"NB_BRIDGE_LOG_FORMAT": "console", "NB_BRIDGE_GROUP": "second"}
        self.workers = [
            self._programs.start("worker", environ=self.environ),
            self._programs.start("worker", environ={**self.environ, **console}),
        ]
        listening = self._logged(self.ingress, "ingress_listening")
        self.url = json.loads(listening[0])["url"].removesuffix("/cmd")

    def require_password(self) -> None:
        """A server that was just started lets everybody in."""
        with redis.Redis(port=self._server.port or 0, protocol=2) as client:
            client.config_set("requirepass", PASSWORD)

    def run(self, *arguments: str, **environ: str) -> Program:
        """A command, to its end."""
        return self._programs.run(*arguments, environ={**self.environ, **environ})

    def post(self, path: str, raw: bytes, token: str = TOKEN, **headers: str) -> int:
        """The status of one callback's answer."""
        if token:
            headers = {"Authorization": f"Bearer {token}", **headers}
        request = urllib.request.Request(self.url + path, data=raw, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                answer = response
                self._saw(answer)
        except urllib.error.HTTPError as error:
            answer = error
            self._saw(answer)
        return int(answer.status or 0)

    def look(self, page: str) -> None:
        """A page of both admin listeners; a worker's is where its newest child has it."""
        listening = self._logged(self.ingress, "ingress_listening")
        started = self._logged(self.workers[0], "worker_started")
        for line in (listening[-1], started[-1]):
            url = json.loads(line)["admin_url"] + page
            with urllib.request.urlopen(url, timeout=10) as response:
                self._saw(response)

    def _saw(self, answer: Any) -> None:
        self.answers.append(f"{answer.headers}\n{answer.read().decode()}")

    def logs(self, event: str, *programs: Program, count: int = 1) -> None:
        """Returns when each of `programs` has logged `event` so often."""
        for program in programs:
            self._logged(program, event, count)

    def _logged(self, program: Program, event: str, count: int = 1) -> list[str]:
        def lines() -> list[str]:
            found = [
                line for line in program.errors.splitlines() if re.search(rf"\b{event}\b", line)
            ]
            return found if len(found) >= count else []

        return wait_until_sync(lines, f"{program.name} to log {event}")

    def has_dead(self, count: int) -> None:
        """Returns when each group has so many dead letters, and so nothing left to do."""
        keys = Keys(namespace="nbcmd")

        def dead(client: redis.Redis) -> list[int]:
            streams = [[keys.dead(p, group) for p in range(4)] for group in ("default", "second")]
            return [sum(int(client.xlen(it)) for it in group) for group in streams]

        with redis.Redis(port=self._server.port or 0, password=PASSWORD, protocol=2) as client:
            # Each that kills its worker does so up to three times, with growing pauses between.
            wait_until_sync(
                lambda: dead(client) == [count, count], f"{count} dead letters", bound_s=180
            )

    def command_lines(self) -> str:
        """Of every process that runs: any user of the machine can read them."""
        roots = [it.process.pid for it in (self.ingress, *self.workers)]
        pids = {*roots, *(pid for root in roots for pid in descendants(root))}
        return "\n".join(Path(f"/proc/{pid}/cmdline").read_text() for pid in pids)

    def everything(self) -> dict[str, str]:
        """All that was printed and answered."""
        printed = {
            path.name: path.read_text(errors="replace")
            for path in self.folder.iterdir()
            if path.suffix in (".out", ".err")
        }
        return {**printed, "answers": "\n".join(self.answers)}


@pytest.fixture
def stage(own_server: EmbeddedServer, programs: Programs) -> Iterator[Stage]:
    return Stage(own_server, programs)


def refused_callbacks(stage: Stage) -> None:
    """With wrong credentials, to wrong places, in forms that are not taken."""
    valid = notification("handle")
    for token in ("", f"{WORD}-wrong"):
        assert stage.post("/cmd", valid, token) == 401
    assert stage.post("/cmd", valid, "", Authorization=f"Basic {CODED[1]}") == 401
    assert stage.post("/cmd", valid, "", **{"X-Secret": f"{WORD}-wrong"}) == 401
    assert stage.post(f"/{PAYLOAD}", valid) == 404
    assert stage.post("/cmd", valid, **{"Content-Encoding": PAYLOAD}) == 415
    assert stage.post("/cmd", PAYLOAD.encode() * 100_000) == 413
    for raw in NO_NOTIFICATIONS:
        assert stage.post("/cmd", raw) in (200, 400)
        assert stage.post("", raw) in (200, 400)


def accepted_callbacks(stage: Stage) -> None:
    """With each kind of credential, and the word where nobody looks for it."""
    valid = notification("handle")
    assert stage.post(f"/cmd?{PAYLOAD}={PAYLOAD}", valid, traceparent=PAYLOAD) == 200
    assert stage.post("/cmd", valid, "", Authorization=f"Basic {CODED[0]}") == 200
    assert stage.post("/cmd", valid, "", **{"X-Secret": f"{WORD}-header"}) == 200
    for way in quoting.WAYS:
        assert stage.post("/cmd", notification(way)) == 200
        assert stage.post("", other(way)) == 200


async def test_no_secret_and_no_payload_is_printed(
    stage: Stage, own_server: EmbeddedServer
) -> None:
    stage.start()
    refused_callbacks(stage)
    accepted_callbacks(stage)
    stage.answers.append(
        (await raw_exchange(stage.url, f"{PAYLOAD} {PAYLOAD}\r\n\r\n".encode())).decode()
    )
    stage.logs("access_refused", stage.ingress)
    stage.has_dead(2 * len(quoting.WAYS))
    stage.logs("dead_letter", *stage.workers)
    stage.logs("handler_overdue", *stage.workers)
    stage.logs("child_died", *stage.workers)

    own_server.kill()
    assert stage.post("/cmd", notification("raise", commandId="spooled")) == 200
    stage.logs("redis_lost", stage.ingress, *stage.workers)
    asked = [("status",), ("check",), ("check", "--json"), ("spool", "status")]
    for words in asked:
        stage.run(*words)
    own_server.start()
    stage.require_password()
    stage.logs("direct_path_opened", stage.ingress, count=2)
    stage.logs("redis_back", *stage.workers)
    stage.has_dead(2 * len(quoting.WAYS) + 1)

    # Not those that show dead letters: their errors are shown there, in the words of the handler.
    asked += [("settings",), ("settings", "--json"), ("status", "--json"), ("groups", "list")]
    asked += [("device", "device-handle"), ("quarantine", "list")]
    asked += [("trace", "handle", "--device", "device-handle")]
    for words in asked:
        stage.run(*words)
    for page in ("/status", "/metrics", "/readyz"):
        stage.look(page)
    assert leaks(stage.command_lines()) == []
    for program in (stage.ingress, *stage.workers):
        assert program.stop() == 0
    assert {
        name: found for name, text in stage.everything().items() if (found := leaks(text))
    } == {}


@pytest.mark.parametrize("url", [*WRONG_URLS, *REFUSED_URLS])
def test_commands_tell_of_a_wrong_url_without_its_secrets(
    url: str,
    own_server: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    with redis.Redis(port=own_server.port or 0, protocol=2) as client:
        client.config_set("requirepass", PASSWORD)
    monkeypatch.setenv("NB_BRIDGE_REDIS_URL", url.format(port=own_server.port))
    for words in (("status",), ("check", "--json"), ("settings",)):
        code = cli.run(list(words))
        assert code or words == ("settings",)
    said = capfd.readouterr()
    assert said.err
    assert leaks(said.out + said.err) == []


@pytest.mark.parametrize(
    ("command", "url", "code"),
    [
        ("serve", WRONG_URLS[0], 2),
        ("serve", WRONG_URLS[4], 2),
        ("worker", WRONG_URLS[0], 2),
        ("worker", WRONG_URLS[4], 2),
        ("worker", REFUSED_URLS[0], 3),
    ],
)
def test_programs_tell_of_a_wrong_url_without_its_secrets(
    command: str, url: str, code: int, stage: Stage
) -> None:
    port = stage.environ["NB_BRIDGE_REDIS_URL"].rpartition(":")[2].partition("/")[0]
    program = stage.run(command, NB_BRIDGE_REDIS_URL=url.format(port=port))
    assert program.ends() == code
    assert program.errors
    assert leaks(program.output + program.errors) == []
