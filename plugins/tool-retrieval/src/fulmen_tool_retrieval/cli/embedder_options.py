"""The options that say whose embeddings: this package's own, or those of a server."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from fulmen_core.errors import UserError
from fulmen_tool_retrieval.remote_embedder import RemoteEmbedder, read_key


def add_embedder_options(parser: ArgumentParser) -> None:
    """Add ``--embeddings``, ``--embeddings-model`` and ``--embeddings-key-file``."""
    parser.add_argument(
        "--embeddings", metavar="URL", help="an OpenAI-compatible server's, e.g. http://127.0.0.1:8000/v1"
    )
    parser.add_argument("--embeddings-model", metavar="NAME", default="", help="what the server calls the model")
    parser.add_argument(
        "--embeddings-key-file", type=Path, metavar="FILE", help="holds the server's API key; default: none is sent"
    )


def remote_embedder(args: Namespace) -> RemoteEmbedder | None:
    """The server's embedder, or None if no server is given.

    Raises:
        UserError: an option is at fault, or belongs to a server that is not given.
    """
    if args.embeddings is None:
        if args.embeddings_model or args.embeddings_key_file is not None:
            raise UserError("there is a model or key of embeddings but no server", remedy="give --embeddings URL")
        return None
    return RemoteEmbedder(args.embeddings, args.embeddings_model, read_key(args.embeddings_key_file))
