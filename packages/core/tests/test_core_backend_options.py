"""What is chosen of one backend alone is NAME=VALUE, reaches that backend, and is never ignored."""

from __future__ import annotations

import pytest

from fulmen_core.backend import Capabilities
from fulmen_core.backend_options import parse_backend_options, refuse_unknown_options
from fulmen_core.cli import main
from fulmen_core.errors import CapabilityError, UserError


class Chip:
    """A backend with options."""

    name = "chip"

    def __init__(self, *options: str) -> None:
        self.options = options

    def capabilities(self) -> Capabilities:
        return Capabilities(options=self.options)


def test_options_are_read_with_all_that_their_values_hold() -> None:
    assert parse_backend_options(["provider=cpu", "path=/a=b"]) == {"provider": "cpu", "path": "/a=b"}
    assert parse_backend_options([]) == {}


@pytest.mark.parametrize("word", ["provider", "provider=", "=cpu", ""])
def test_a_word_that_is_no_option_is_refused(word: str) -> None:
    with pytest.raises(UserError, match="is no NAME=VALUE"):
        parse_backend_options([word])


def test_an_option_is_given_once() -> None:
    with pytest.raises(UserError, match="provider is given twice"):
        parse_backend_options(["provider=cpu", "provider=cuda"])


def test_an_option_that_the_backend_does_not_have_is_refused() -> None:
    refuse_unknown_options(Chip("provider"), {"provider": "cpu"})  # type: ignore[arg-type] # as far as it is asked
    with pytest.raises(CapabilityError, match="chip has no option 'providr': did you mean 'provider'"):
        refuse_unknown_options(Chip("provider"), {"providr": "cpu"})  # type: ignore[arg-type]
    with pytest.raises(CapabilityError, match="it has none: leave --backend-option out"):
        refuse_unknown_options(Chip(), {"provider": "cpu"})  # type: ignore[arg-type]


def test_options_without_a_backend_explain_nothing(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backends", "explain", "--model", str(tmp_path), "--backend-option", "provider=cpu"]) == 2
    assert "--backend-option needs --backend" in capsys.readouterr().err
