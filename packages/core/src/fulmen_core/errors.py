"""The errors that a user can cause. The command line prints one sentence for each and exits with code 2."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can mend: what is wrong, where, and the remedy, in one sentence.

    Args:
        what: the fault, without a full stop, e.g. ``"unknown key 'windw'"``.
        where: the file, setting or request it was found in, e.g. ``"recipes/base.toml [model]"``.
        remedy: what to do, e.g. ``"did you mean 'window'?"``.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what, self.where, self.remedy = what, where, remedy
        sentence = f"{what} in {where}" if where else what
        super().__init__(f"{sentence}: {remedy}" if remedy else sentence)


class PluginError(UserError):
    """A plugin was selected and cannot be used: it is broken, unavailable, blocked or in conflict."""


class CapabilityError(UserError):
    """A backend was asked for something that its `Capabilities` do not list."""


class CorruptArtefact(UserError):
    """A checkpoint, shard or manifest is truncated, altered or lies about its contents."""
