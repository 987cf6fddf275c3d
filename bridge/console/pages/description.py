"""`/openapi.json`: the console's routes for programs, for whoever is let in."""

from __future__ import annotations

from aiohttp import web


class Description:
    """The route of one application, which knows whether it asks for credentials."""

    def __init__(self, *, has_credentials: bool) -> None:
        self._has_credentials = has_credentials
        self.routes = (web.get("/openapi.json", self.show),)

    async def show(self, request: web.Request) -> web.Response:
        """The description, with the address that was asked."""
        from bridge.console import openapi  # only when somebody asks for it

        server_url = f"{request.scheme}://{request.host}"
        return web.json_response(
            openapi.describe(server_url=server_url, has_credentials=self._has_credentials)
        )
