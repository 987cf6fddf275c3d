"""Reading the certificate again when its files have changed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from bridge.errors import UsageError
from bridge.http.certificate_expiry import expires_at_s
from bridge.http.tls import TlsFiles
from bridge.telemetry import logs, metrics

INTERVAL_S: Final = 2.0


class TlsReloader:
    """Looks at the files every `INTERVAL_S`, and has new connections served with new ones.

    Files that cannot be used, such as a certificate whose key is not there yet, change nothing:
    the old ones go on, and are reported once. They are tried until they can be.
    """

    def __init__(
        self,
        files: TlsFiles,
        serve: Callable[[ssl.SSLContext], None],
        *,
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._files = files
        self._serve = serve
        self._interval_s = interval_s
        self._loaded = self._state()
        self._logged: tuple[object, str] | None = None
        self._log = logs.get("tls")
        self._tell_expiry()

    async def run(self) -> None:
        """Watches until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            state = self._state()
            if state == self._loaded:
                continue
            try:
                self._serve(self._files.context())
            except (UsageError, OSError) as error:
                self._tell_failed(state, str(error))
            else:
                self._loaded, self._logged = state, None
                metrics.tls_reloads.labels("done").inc()
                self._log.info("tls_reloaded")
                self._tell_expiry()

    def _tell_failed(self, state: object, error: str) -> None:
        if (state, error) != self._logged:
            self._logged = (state, error)
            metrics.tls_reloads.labels("failed").inc()
            self._log.error("tls_reload_failed", error=error)

    def _tell_expiry(self) -> None:
        try:
            metrics.tls_expiry.set(expires_at_s(self._files.cert))
        except (OSError, ValueError) as error:  # OpenSSL took it: odd, but no reason not to serve
            self._log.warning("tls_expiry_unknown", error=str(error))

    def _state(self) -> tuple[object, ...] | None:
        try:
            return self._files.state()
        except OSError:
            return None
