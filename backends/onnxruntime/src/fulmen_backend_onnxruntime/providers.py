"""Which execution provider of ONNX Runtime computes: the one that is asked for, else the CPU's; and why.

The CPU's is the default even beside others: the tests of parity have run on it alone, and the caches lie in its memory,
from where another would fetch them, and to where it would bring them back, at every step.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, NamedTuple

import onnxruntime

from fulmen_core.errors import CapabilityError
from fulmen_core.suggestions import closest

CPU = "CPUExecutionProvider"
_SUFFIX = "ExecutionProvider"
#: Listed by builds that can ask a service to compute; it is no device.
_SERVICES = ("AzureExecutionProvider",)


class Provider(NamedTuple):
    """A choice, and what it rests on."""

    name: str
    reason: str


def installed_providers() -> dict[str, str]:
    """The providers of this ONNX Runtime by their short names, such as "cpu" and "cuda", in its own order."""
    names = [name for name in onnxruntime.get_available_providers() if name not in _SERVICES]
    return {name.removesuffix(_SUFFIX).lower(): name for name in names}


def choose_provider(asked: str | None) -> Provider:
    """The provider called `asked`, by its short or its full name; None: the CPU's.

    Raises:
        CapabilityError: there is none of that name here.
    """
    here = installed_providers()
    build = f"onnxruntime {onnxruntime.__version__}"
    if asked is not None:
        name = here.get(asked.lower(), asked)
        if name not in here.values():
            near = closest(asked.lower(), here)
            remedy = f"did you mean {near!r}?" if near else f"choose one of them, or install a build that has {asked}"
            raise CapabilityError(f"{build} has no provider {asked!r}, but {', '.join(here)}", remedy=remedy)
        return Provider(name, "asked for")
    others = [short for short in here if here[short] != CPU]
    if not others:
        services = [name for name in onnxruntime.get_available_providers() if name in _SERVICES]
        return Provider(CPU, f"{build} has no other device" + "".join(f"; {name} asks a service" for name in services))
    names = ", ".join(here[short] for short in others)
    reason = f"{names} of {build} would copy caches at every step: --backend-option provider={others[0]}"
    return Provider(CPU, reason)


def nodes_by_provider(session: Any) -> str:
    """How many nodes of a session's graph each provider computes, as "290 CPUExecutionProvider"."""
    counts: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] += len(part.get_nodes())
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
