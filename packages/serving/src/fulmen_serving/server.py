"""Running the application on a socket: bound before the model is loaded, drained when a signal asks it to stop."""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import uvicorn
from fastapi import FastAPI

from fulmen_core.errors import UserError
from fulmen_serving.engine.engine import Engine
from fulmen_serving.tls import TlsFiles

logger = logging.getLogger(__name__)
_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def bind(host: str, port: int) -> socket.socket:
    """Return a listening TCP socket; port 0 takes a free one. What connects before the server runs waits for it.

    Raises:
        UserError: the port is taken or not allowed, or there is no such host.
    """
    if not 0 <= port <= 65535:  # the resolver would silently take it modulo 65536
        raise UserError(f"port {port} does not lie between 0 and 65535", remedy="choose another --port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise UserError(f"{host!r} port {port} is no address of this machine", remedy="try --host 127.0.0.1") from None
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise _cannot_bind(host, port, error) from None
    listener.setblocking(False)
    return listener


def _cannot_bind(host: str, port: int, error: OSError) -> UserError:
    if error.errno == errno.EADDRINUSE:
        return UserError(f"port {port} of {host} is in use", remedy="stop what uses it, or choose another with --port")
    if error.errno == errno.EACCES:
        return UserError(
            f"port {port} of {host} is not allowed to this user", remedy="choose a --port of at least 1024"
        )
    return UserError(
        f"cannot listen on port {port} of {host} ({error})", remedy="try --host 127.0.0.1 and another --port"
    )


def url_of(listener: socket.socket, scheme: str = "http") -> str:
    """The URL under which the socket is reached."""
    host, port = listener.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


class DrainingServer(uvicorn.Server):
    """Serves until SIGTERM or Ctrl-C, then takes nothing new and finishes what runs. A second Ctrl-C ends at once.

    Args:
        app: the application.
        engine: told to drain when a signal arrives.
        drain_seconds: what still runs after that time is cut off.
        on_ready: called once connections are accepted.
        tls: encrypts connections; SIGHUP reads its certificate and key again.

    Raises:
        UserError: a file of `tls` is at fault.
    """

    def __init__(
        self,
        app: FastAPI,
        engine: Engine,
        *,
        drain_seconds: int,
        on_ready: Callable[[], None],
        tls: TlsFiles | None = None,
    ) -> None:
        config = uvicorn.Config(
            app,
            http="h11",  # one parser everywhere, whatever else is installed
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=drain_seconds,
        )
        super().__init__(config)
        self._engine, self._on_ready, self._tls = engine, on_ready, tls
        self._context = None if tls is None else tls.context()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept connections, then say so."""
        self.config.ssl = self._context
        await super().startup(sockets)
        self._on_ready()

    def reload_tls(self) -> None:
        """Read certificate and key again. What does not fit is logged, and the former ones go on."""
        if self._tls is None or self._context is None:
            return
        try:
            self._tls.reload(self._context)
        except UserError as error:
            logger.error("the certificate was not read again: %s", error)
        else:
            logger.info("the certificate %s was read again", self._tls.certificate)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal arrived."""
        self._engine.begin_drain()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's, but a drained stop is a success: the signal is not raised again."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {sig: signal.signal(sig, self.handle_exit) for sig in _SIGNALS}
        if self._tls is not None and hasattr(signal, "SIGHUP"):
            before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: self.reload_tls())
        try:
            yield
        finally:
            for sig, handler in before.items():
                signal.signal(sig, handler)
