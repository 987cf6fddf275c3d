"""FastAPI under uvicorn (uvloop, httptools, no access log), with a model and one XADD a request."""

from __future__ import annotations

import sys
from typing import Any

import redis.asyncio
import uvicorn
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel

app = FastAPI()
client = redis.asyncio.Redis.from_url(sys.argv[2], max_connections=64)


class Result(BaseModel):
    resultCode: str
    resultDetail: Any = None


class Notification(BaseModel):
    deviceId: str
    commandId: str
    result: Result


@app.post("/v1.0.0/messageReceiver/cmd", response_class=PlainTextResponse)
async def handle(it: Notification) -> str:
    fields = {"device": it.deviceId, "command": it.commandId, "body": it.model_dump_json()}
    await client.xadd("fastapi", {**fields, "status": it.result.resultCode})
    return "ok"


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
