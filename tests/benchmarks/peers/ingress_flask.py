"""A Flask receiver in the style of the SDK, under one gunicorn worker with threads.

The route calls a method without arguments, whose input is Flask's `request`; it does one XADD.
"""

from __future__ import annotations

import os

import redis
from flask import Flask, request

client = redis.Redis.from_url(os.environ["BENCH_REDIS_URL"])


class PushMessageReceiver:
    def handleNBCommandStateChanged(self) -> None:
        it = request.json
        fields = {"device": it["deviceId"], "command": it["commandId"], "body": request.data}
        client.xadd("flask", {**fields, "status": it["result"]["resultCode"]})


app = Flask(__name__)
receiver = PushMessageReceiver()


@app.route("/v1.0.0/messageReceiver/cmd", methods=["POST"])
def handle() -> str:
    receiver.handleNBCommandStateChanged()
    return "ok"
