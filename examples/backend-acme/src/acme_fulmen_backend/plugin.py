"""What this distribution registers. Light: every command that lists plugins imports it, so it imports no library."""

from __future__ import annotations

from fulmen_core.descriptors import Availability, BackendInfo
from fulmen_core.hooks import hookimpl


def probe() -> Availability:
    """Say whether the backend can be used here, and why not. Never raises; finds its library by name, unimported."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        found = version("torch")
    except PackageNotFoundError:
        return Availability(ok=False, reason="PyTorch is not installed: pip install acme-fulmen-backend")
    return Availability(ok=True, devices=("cpu",), versions={"torch": found})


@hookimpl
def fulmen_backends() -> list[BackendInfo]:
    """The backend. A negative priority: `auto` takes it only where there is nothing better."""
    return [
        BackendInfo(
            "acme",
            "serves checkpoints with PyTorch, one sequence after another",
            probe,
            "acme_fulmen_backend.backend:AcmeBackend",
            priority=-100,
        )
    ]
