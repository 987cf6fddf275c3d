"""The aiohttp application: middlewares, templates and routes put together.

Knows no settings: what it is made of can be made by a test, too.
"""

from __future__ import annotations

import aiohttp_jinja2
import jinja2
from aiohttp import web

from bridge.console import failures, filters, headers, health, looking, navigation
from bridge.console.assets import Assets
from bridge.console.door.authentication import Authentication
from bridge.console.door.requests import MAX_BODY_BYTES, RequestRules
from bridge.console.pages.description import Description
from bridge.console.pages.log_in import LogIn
from bridge.console.parts import PARTS, Parts


def make(parts: Parts, authentication: Authentication, rules: RequestRules) -> web.Application:
    """An application that has not begun yet."""
    application = web.Application(
        middlewares=(
            failures.answer_failures,
            rules.check_name,
            rules.check_origin,
            authentication.check,
            rules.read_body,
        ),
        client_max_size=MAX_BODY_BYTES,
    )
    application[PARTS] = parts
    looking.prepare(application)
    application.on_response_prepare.append(headers.add)
    assets = Assets()
    environment = aiohttp_jinja2.setup(
        application,
        loader=jinja2.PackageLoader("bridge.console"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        filters=dict(filters.FILTERS),
    )
    environment.globals.update(
        filters.GLOBALS,
        asset=assets.address,
        entries=navigation.ENTRIES,
        page_at=navigation.page_at,
    )
    application.add_routes(assets.routes)
    application.add_routes(health.ROUTES)
    if authentication.credentials:
        application.add_routes(LogIn(authentication).routes)
    application.add_routes(Description(has_credentials=bool(authentication.credentials)).routes)
    for module in navigation.PAGES:
        application.add_routes(module.ROUTES)
    return application
