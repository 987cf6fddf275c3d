"""A receiver in the layout of the SDK's own file: Flask's request, and no class of ours."""

import json
import os

from flask import Flask, request

app = Flask(__name__)


@app.route("/v1.0.0/messageReceiver", methods=["POST"])
def push_message():
    raise AssertionError("the route of the old file is not used")


class PushMessageReceiver(object):  # noqa: UP004 - as in the old file
    def handleDeviceAdded(self):
        self._write(request.json)

    def handleNBCommandStateChanged(self):
        assert request.method == "POST"
        assert request.get_json() == request.json
        self._write(request.json)

    def _write(self, it):
        with open(os.environ["SDK_OUTPUT"], "a") as file:
            file.write(json.dumps([request.path, it]) + "\n")
