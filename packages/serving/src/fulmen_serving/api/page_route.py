"""``GET /``: the web page. Its files are read from the package once, and no other file can be asked for.

What its content may do: scripts and styles are the server's own files, nothing is framed, no string ever becomes markup
(Trusted Types), and no picture of another host is loaded, so that showing an answer sends nothing anywhere.
The page may connect to any server, since its user may name one to compare with; only what the user does connects.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self' http: https:",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, and asked for again: an update is seen with the next visit
}
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


class PageFile(NamedTuple):
    """One file of the page, as it is sent."""

    content: bytes
    media_type: str
    etag: str


def page_files() -> dict[str, PageFile]:
    """Read the page from the package: paths such as ``chat/view.js`` to files."""
    found = {}
    for path, entry in _walk(files("fulmen_serving") / "page", ""):
        if (media_type := _TYPES.get(path[path.rfind(".") :])) is not None:
            content = entry.read_bytes()
            found[path] = PageFile(content, media_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found


def page_router() -> APIRouter:
    """Make the routes: the page at ``/``, and what it is made of under ``/page/``."""
    router = APIRouter(include_in_schema=False)
    files_by_path = page_files()

    @router.api_route("/", methods=["GET", "HEAD"])
    async def index(request: Request) -> Response:
        return _response(files_by_path["index.html"], request)

    @router.api_route("/page/{path:path}", methods=["GET", "HEAD"])
    async def file(request: Request, path: str) -> Response:
        if (found := files_by_path.get(path)) is None:
            raise HTTPException(404)
        return _response(found, request)

    return router


def _response(file: PageFile, request: Request) -> Response:
    headers = {**_HEADERS, "ETag": file.etag}
    if file.etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


def _walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry
