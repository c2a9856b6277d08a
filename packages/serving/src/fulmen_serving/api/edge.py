"""What stands between the network and the routes: CORS, a time limit, keys, and the admin routes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import APIRouter, Depends, FastAPI
from fastapi.middleware.cors import CORSMiddleware

from fulmen_core.errors import UserError
from fulmen_serving.api.admin_gate import admin_gate
from fulmen_serving.api.key_gate import KeyGate
from fulmen_serving.api.time_limit import TimeLimit
from fulmen_serving.api.trace_requests import TraceRequests
from fulmen_serving.metrics import ServingMetrics
from fulmen_serving.request_trace import Tracer

if TYPE_CHECKING:
    from fulmen_serving.platform.platform import Platform

_MIN_ADMIN_KEY = 24
_LIMITS = [f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")]


@dataclass(frozen=True, slots=True)
class Edge:
    """How the server meets the network.

    Attributes:
        platform: whose keys are demanded; None: nobody's.
        admin_key: opens the admin routes; empty: there are none.
        cors_origins: whose pages may call the API from a browser, e.g. ``https://chat.example.org``, or ``*``.
        request_seconds: the longest that a request may take; None: any time.
        tracer: watches every request; None: nobody does.

    Raises:
        UserError: one of them does not fit.
    """

    platform: Platform | None = None
    admin_key: str = ""
    cors_origins: tuple[str, ...] = ()
    request_seconds: float | None = None
    tracer: Tracer | None = None

    def __post_init__(self) -> None:
        if self.admin_key and self.platform is None:
            raise UserError(
                "there is an admin key (FULMEN_ADMIN_KEY) but nothing to administer", remedy="give --platform too"
            )
        if self.admin_key and not (len(self.admin_key) >= _MIN_ADMIN_KEY and self.admin_key.isascii()):
            raise UserError(
                f"the admin key in FULMEN_ADMIN_KEY has fewer than {_MIN_ADMIN_KEY} characters, or others than ASCII",
                remedy="make one with `openssl rand -hex 32`",
            )
        if self.request_seconds is not None and not 0 < self.request_seconds < float("inf"):
            raise UserError(f"a time limit of {self.request_seconds} s is no time", remedy="give seconds above 0")
        for origin in self.cors_origins:
            scheme, _, host = origin.partition("://")
            if origin != "*" and (scheme not in ("http", "https") or not host or "/" in host):
                raise UserError(
                    f"{origin!r} is no origin", where="--cors-origin", remedy="write e.g. https://chat.example.org"
                )

    def install(self, app: FastAPI, metrics: ServingMetrics, max_body_bytes: int, telling: Sequence[APIRouter]) -> None:
        """Put it around the routes of `app`, and add the admin routes. `telling` are those of the guard's work."""
        # the last one added is the outermost: CORS answers for refusals too, and a request's time ends within its key
        if self.request_seconds is not None:
            app.add_middleware(TimeLimit, seconds=self.request_seconds)
        if self.platform is None:
            for router in telling:  # whoever may ask for answers may also see what became of them
                app.include_router(router)
        else:
            app.add_middleware(KeyGate, platform=self.platform, metrics=metrics)
            if self.admin_key:
                from fulmen_serving.api.admin_route import admin_router  # needs the extra [platform]

                gate = [Depends(admin_gate(self.platform, self.admin_key))]
                app.include_router(admin_router(self.platform, max_body_bytes), dependencies=gate)
                for router in telling:
                    app.include_router(router, dependencies=gate)
        if self.cors_origins:
            app.add_middleware(
                CORSMiddleware,
                allow_origins=self.cors_origins,
                allow_methods=["*"],
                allow_headers=["*"],
                expose_headers=["retry-after", *_LIMITS],
            )
        if self.tracer is not None:
            app.add_middleware(TraceRequests, tracer=self.tracer)
