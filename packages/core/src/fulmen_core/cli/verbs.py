"""The verbs of `fulmen`: those of core, those that first-party distributions bring, and whatever else is installed.

`fulmen --help` must cost next to nothing, so this reads the few entry points it needs straight from the ``*.dist-info``
folders: `importlib.metadata` alone costs 35 ms of CPU to import. Everything else asks the registry.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

#: Verb -> one line of help and the module whose ``run(argv)`` it is.
BUILT_IN: dict[str, tuple[str, str]] = {
    "model": ("show a model's sizes and its KV memory", "fulmen_core.cli.model"),
    "import": ("turn an open checkpoint into a model folder", "fulmen_core.cli.importing"),
    "generate": ("complete a prompt with a model", "fulmen_core.cli.generating"),
    "export": ("write a deployable artefact, e.g. ONNX, and compare it", "fulmen_core.cli.export"),
    "runs": ("show what a run made, from what, and how well", "fulmen_core.cli.runs"),
    "plugins": ("list the installed plugins, importing none", "fulmen_core.cli.plugins"),
    "backends": ("probe the backends and say which can be used", "fulmen_core.cli.backends"),
    "doctor": ("try every plugin in a process of its own", "fulmen_core.cli.doctor"),
}

#: Verb -> one line of help and the distribution that brings it.
FIRST_PARTY: dict[str, tuple[str, str]] = {
    "demo": ("the whole road on this machine, in minutes", "fulmen-demo"),
    "data": ("build token shards from documents", "fulmen-trainer"),
    "tokenizer": ("train a BPE tokenizer on a corpus", "fulmen-trainer"),
    "pretrain": ("pre-train in three stages", "fulmen-trainer"),
    "sft": ("fine-tune on instructions", "fulmen-trainer"),
    "reward": ("train a reward model on preference pairs", "fulmen-trainer"),
    "dpo": ("align with DPO, offline and online", "fulmen-trainer"),
    "serve": ("serve a model behind the OpenAI-compatible API", "fulmen-serving"),
    "serve-ray": ("serve a model with several replicas on Ray", "fulmen-serving-ray"),
    "keys": ("make, list and revoke the API keys of a server", "fulmen-serving"),
    "usage": ("show what keys have used and what it costs", "fulmen-serving"),
    "chat": ("talk to a model in the terminal", "fulmen-serving"),
    "bench": ("measure a server under load", "fulmen-serving"),
    "retrieval": ("index documents, search an index, show it", "fulmen-tool-retrieval"),
    "conform": ("hold a backend or a detector against its contract", "fulmen-testing"),
    "raise": ("check text against the RAISE policy", "fulmen-safety"),
    "raise-quality": ("judge the documents of a corpus, train a scorer", "fulmen-raise-quality"),
    "raise-probe": ("train a probe on a model's hidden states", "fulmen-raise-probe"),
}

USAGE = "usage: fulmen [--no-plugin NAME] [--plugin FILE] [--threads N] [--debug] VERB ..."

_OPTIONS = (
    ("--no-plugin NAME", "never import the plugin or distribution NAME; may be repeated"),
    ("--plugin FILE", "load a single-file plugin; may be repeated"),
    ("--threads N", "let numeric libraries use N threads"),
    ("--debug", "show tracebacks and debug logs"),
    ("--version", "print the version"),
    ("--help", "print this"),
)

_GROUP = "[fulmen.commands.v1]"


def help_text() -> str:
    """The text of `fulmen --help`."""
    installed = dict(installed_verbs())
    lines = [USAGE, "", "Fulmen: from raw text to a guarded chat endpoint, in installable parts.", ""]
    lines += _section(
        "verbs", [(verb, summary, "fulmen-core") for verb, (summary, _) in BUILT_IN.items()] + _first_party(installed)
    )
    third = [
        (verb, f"see `fulmen {verb} --help`", name) for verb, name in sorted(installed.items()) if not is_known(verb)
    ]
    lines += _section("verbs of other plugins", third)
    lines += ["options", *(f"  {option:<18}{text}" for option, text in _OPTIONS), ""]
    lines += ["`fulmen VERB --help` says more about a verb."]
    return "\n".join(lines)


def is_known(verb: str) -> bool:
    """Whether the verb is built in or of a first-party distribution."""
    return verb in BUILT_IN or verb in FIRST_PARTY


def installed_verbs() -> Iterator[tuple[str, str]]:
    """Yield every installed verb with the distribution that brings it, as far as folder names tell."""
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - pathlib is not needed otherwise here
        except OSError:
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                yield from _verbs_in(os.path.join(folder, name, "entry_points.txt"), name)  # noqa: PTH118


def _verbs_in(path: str, folder: str) -> Iterator[tuple[str, str]]:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123
            lines = [line.strip() for line in file]
    except (OSError, ValueError):
        return
    section = ""
    for line in lines:
        if line.startswith("["):
            section = line
        elif section == _GROUP and "=" in line:
            yield line.partition("=")[0].strip(), folder.partition("-")[0].removesuffix(".egg-info").replace("_", "-")


def _first_party(installed: dict[str, str]) -> list[tuple[str, str, str]]:
    return [
        (verb, summary, distribution if verb in installed else f"pip install {distribution}")
        for verb, (summary, distribution) in FIRST_PARTY.items()
    ]


def _section(title: str, rows: list[tuple[str, str, str]]) -> list[str]:
    if not rows:
        return []
    return [title, *(f"  {verb:<14}{summary:<56}{origin}" for verb, summary, origin in rows), ""]
