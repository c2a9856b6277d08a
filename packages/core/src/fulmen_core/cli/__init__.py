"""The `fulmen` command: takes the options before the verb, finds the verb, and turns faults into one line and an exit
code.

In: arguments. Out: an exit code: 0 well, 1 a fault of ours, 2 a fault the user can mend, 130 interrupted.
May import at the top: only what `fulmen --help` needs; everything else is imported by the verb that needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from fulmen_core.errors import UserError

#: Modules that an extra of fulmen-core brings, so that a missing one can be named by its remedy.
_EXTRAS = {
    "torch": "fulmen-core[model]",
    "safetensors": "fulmen-core[model]",
    "tokenizers": "fulmen-core[tokenizer]",
    "jinja2": "fulmen-core[tokenizer]",
    "numpy": "fulmen-core[tokenizer]",
}

Verb = Callable[[Sequence[str]], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run `fulmen` with these arguments (default: the process's) and return its exit code. Prints every fault."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except UserError as error:
        return _fault(f"error: {error}", error.exit_code, error)
    except KeyboardInterrupt as error:
        return _fault("interrupted", 130, error)
    except BrokenPipeError:
        # The reader of our output went away (`fulmen plugins | head -1`). Python would complain when it flushes at
        # exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in _EXTRAS:
            return _fault(
                f"error: this needs {missing}, which is not installed: pip install '{_EXTRAS[missing]}'", 2, error
            )
        return _unexpected(error)
    except Exception as error:
        return _unexpected(error)


def _run(words: list[str]) -> int:
    from fulmen_core.cli.global_options import split

    options, verb, rest = split(words)
    if verb in ("", "--help"):
        from fulmen_core.cli.verbs import help_text

        print(help_text())
        return 0
    if verb == "--version":
        from importlib.metadata import version

        print(f"fulmen {version('fulmen-core')}")
        return 0
    from fulmen_core.cli import context

    context.begin(options)
    _start_logging()
    context.limit_threads()
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # a lone surrogate in a result is printed, not raised
    try:
        return _find(verb)(rest)
    except SystemExit as stop:  # argparse, after `--help`
        return (
            stop.code
            if isinstance(stop.code, int)
            else 0
            if stop.code is None
            else _fault(f"error: {stop.code}", 2, stop)
        )


def _find(verb: str) -> Verb:
    from importlib import import_module

    from fulmen_core.cli import context
    from fulmen_core.cli.verbs import BUILT_IN, FIRST_PARTY
    from fulmen_core.suggestions import closest

    if verb in BUILT_IN:
        built_in: Verb = import_module(BUILT_IN[verb][1]).run
        return built_in
    if context.registry().has_command(verb):
        return context.registry().command(verb)
    if verb in FIRST_PARTY:
        distribution = FIRST_PARTY[verb][1]
        raise UserError(
            f"the verb '{verb}' comes with {distribution}, which is not installed", remedy=f"pip install {distribution}"
        )
    installed = {record.name for record in context.registry().records() if record.kind == "command"}
    near = closest(verb, {*BUILT_IN, *FIRST_PARTY, *installed})
    raise UserError(f"unknown verb {verb!r}", remedy=f"did you mean '{near}'?" if near else "see `fulmen --help`")


def _start_logging() -> None:
    """Send what Fulmen's members have to say to stderr, and of other libraries only warnings."""
    import logging

    from fulmen_core.cli import context

    root = logging.getLogger()
    if root.handlers:  # whoever called us has other plans
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("fulmen: %(message)s"))
    handler.addFilter(lambda record: record.name.startswith("fulmen") or record.levelno >= logging.WARNING)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if context.settings().debug else logging.INFO)


def _unexpected(error: Exception) -> int:
    message = " ".join(str(error).split())
    return _fault(
        f"error: unexpected {type(error).__name__}: {message} (run `fulmen --debug ...` for the traceback)", 1, error
    )


def _fault(line: str, code: int, error: BaseException) -> int:
    from fulmen_core.cli import context

    if context.debug():
        import traceback

        traceback.print_exception(error)
    print(f"fulmen: {line}", file=sys.stderr)
    return code
