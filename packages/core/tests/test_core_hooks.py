"""Every hook is documented, either registers or announces, and its spec module is light."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

from fulmen_core.hooks import GROUPS, HOOK_GENERATION
from fulmen_core.plugin_loader import DESCRIPTORS, event_hooks, hooks_of

ALL_HOOKS = sorted((group, hook) for group in GROUPS for hook in hooks_of(group))


@pytest.mark.parametrize(("group", "hook"), ALL_HOOKS)
def test_a_hook_says_what_it_is_for_and_who_calls_it(group: str, hook: str) -> None:
    doc = inspect.getdoc(getattr(importlib.import_module(GROUPS[group]), hook)) or ""
    assert doc.startswith("Announce: " if hook in event_hooks() else "Describe "), doc


@pytest.mark.parametrize(("group", "hook"), ALL_HOOKS)
def test_a_hook_either_registers_or_announces(group: str, hook: str) -> None:
    assert (hook in DESCRIPTORS) != (hook in event_hooks())
    returns = inspect.signature(getattr(importlib.import_module(GROUPS[group]), hook)).return_annotation
    assert returns == ("None" if hook in event_hooks() else f"Iterable[{DESCRIPTORS[hook].__name__}]")


def test_every_group_carries_the_hook_generation_and_at_least_one_hook() -> None:
    assert all(group.endswith(f".{HOOK_GENERATION}") and hooks_of(group) for group in GROUPS)


def test_a_plugin_module_that_imports_hooks_and_descriptors_stays_light() -> None:
    code = (
        "import fulmen_core.hooks, fulmen_core.descriptors, sys;"
        "print([m for m in ('torch', 'numpy', 'pydantic', 'pydantic_settings', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
