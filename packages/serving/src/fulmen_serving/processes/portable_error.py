"""Errors that a child sends to its parent."""

from __future__ import annotations

import pickle


def portable(error: Exception) -> Exception:
    """`error`, or what can be said of it if it cannot be sent to a process that lacks the modules of a backend."""
    home = type(error).__module__.partition(".")[0]
    if home in ("builtins", "fulmen_core"):
        try:
            pickle.loads(pickle.dumps(error))  # noqa: S301 - what was pickled in the same line
            return error
        except Exception:  # its class does not keep the pickle protocol
            pass
    return RuntimeError(f"{type(error).__name__}: {error}")
