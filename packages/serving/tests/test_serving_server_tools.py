"""No tool can hurt the server: what it does wrong becomes a result that says so; and a result is judged before use."""

from __future__ import annotations

import asyncio
import json
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulmen_core.descriptors import ToolInfo
from fulmen_core.errors import UserError
from fulmen_core.hooks import hookimpl
from fulmen_core.registry import Registry
from fulmen_core.tool import ToolError, ToolResult
from fulmen_serving.cli.tool_options import tool_settings
from fulmen_serving.refusal import Refusal
from fulmen_serving.tools.result_guard import WITHHELD, judge_result
from fulmen_serving.tools.server_tool import ServerTool
from fulmen_serving.tools.tool_runner import MOST_ABANDONED, ToolRunner
from fulmen_serving.tools.toolbox import ToolBounds, load_toolbox

PARAMETERS = {
    "type": "object",
    "properties": {"n": {"type": "integer", "minimum": 0}},
    "required": ["n"],
    "additionalProperties": False,
}


def tool_of(call, seconds: float = 5.0, characters: int = 100) -> ServerTool:
    return ServerTool("double", "twice a number", PARAMETERS, call, seconds, characters)


def double(arguments, context) -> ToolResult:
    return ToolResult((str(2 * arguments["n"]), "done"))


def run(tool: ServerTool, arguments: str = '{"n": 21}', seconds: float = 5.0, runner: ToolRunner | None = None):
    return asyncio.run((runner or ToolRunner()).run(tool, arguments, "req-1", seconds))


def test_a_call_gives_its_result_and_its_time() -> None:
    outcome = run(tool_of(double))
    assert (outcome.ok, outcome.parts) == (True, ("42", "done"))
    assert 0 < outcome.seconds < 5


def test_a_tool_is_told_its_request_and_deadline_and_nothing_of_the_conversation() -> None:
    seen = []
    run(tool_of(lambda arguments, context: seen.append((arguments, context)) or ToolResult(())), seconds=1.0)
    [(arguments, context)] = seen
    assert arguments == {"n": 21}
    assert context.request_id == "req-1"
    assert 0 < context.deadline - time.monotonic() <= 1.0


def raises(error: BaseException):
    def call(arguments, context):
        raise error

    return call


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (raises(ToolError("no such\nfile")), "Error: no such file"),
        (raises(ToolError("")), "Error: the tool failed"),
        (raises(ValueError("password is hunter2")), "Error: the tool double failed"),
        (raises(SystemExit(1)), "Error: the tool double failed"),
        (lambda arguments, context: "42", "Error: the tool double failed"),
        (lambda arguments, context: ToolResult(("x" * 60, "y" * 60)), "more than the 100 allowed"),
    ],
)
def test_a_tool_that_fails_is_told_to_the_model_in_a_sentence(call, said: str) -> None:
    outcome = run(tool_of(call))
    assert not outcome.ok
    assert said in outcome.parts[0]
    assert "hunter2" not in outcome.parts[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"n": 21', "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "no JSON object"),
        ("{}", "'n' is a required property"),
        ('{"n": "21"}', "arguments['n'] do not fit: '21' is not of type 'integer'"),
        ('{"n": -1}', "less than the minimum"),
        ('{"n": 1, "m": 2}', "'m' was unexpected"),
    ],
)
def test_arguments_that_do_not_fit_never_reach_the_tool(arguments: str, said: str) -> None:
    outcome = run(tool_of(raises(AssertionError("reached"))), arguments)
    assert not outcome.ok
    assert said in outcome.parts[0]


@settings(deadline=None)
@given(st.text(max_size=30) | st.fixed_dictionaries({"n": st.integers() | st.text()}).map(json.dumps))
def test_whatever_a_model_writes_as_arguments_gives_a_result(arguments: str) -> None:
    outcome = run(tool_of(double), arguments)
    try:
        fits = json.loads(arguments)
    except ValueError:
        fits = None
    assert outcome.ok == (isinstance(fits, dict) and fits.keys() == {"n"} and type(fits["n"]) is int and fits["n"] >= 0)
    assert outcome.ok or outcome.parts[0].startswith("Error: ")


def test_a_late_call_is_given_up_and_told_so_and_too_many_stop_the_tool() -> None:
    gate, told = threading.Event(), []

    def hang(arguments, context):
        gate.wait(10)
        told.append(context.cancelled.is_set())
        return ToolResult(("late",))

    runner, tool = ToolRunner(), tool_of(hang, seconds=0.05)
    begun = time.monotonic()
    outcomes = [run(tool, runner=runner) for _ in range(MOST_ABANDONED + 1)]
    assert time.monotonic() - begun < 3
    assert "gave no result within 0.05 s" in outcomes[0].parts[0]
    assert "is busy" in outcomes[-1].parts[0]
    gate.set()
    deadline = time.monotonic() + 5
    while len(told) < MOST_ABANDONED and time.monotonic() < deadline:
        time.sleep(0.01)
    assert told == [True] * MOST_ABANDONED
    for _ in range(100):  # the last thread may still be on its way out
        if (again := run(tool_of(double), runner=runner)).ok:
            break
        time.sleep(0.01)
    assert again.ok


def test_a_call_takes_no_longer_than_the_request_has_left() -> None:
    tool = tool_of(lambda arguments, context: time.sleep(1) or ToolResult(()))
    assert "within 0.05 s" in run(tool, seconds=0.05).parts[0]
    assert "no time left" in run(tool, seconds=0.0).parts[0]


def test_a_client_that_leaves_is_told_to_the_tool() -> None:
    seen = []

    def slow(arguments, context):
        seen.append(context.cancelled.wait(5))
        return ToolResult(())

    async def leave() -> None:
        task = asyncio.create_task(ToolRunner().run(tool_of(slow), '{"n": 1}', "r", 5.0))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        while not seen:
            await asyncio.sleep(0.01)

    asyncio.run(leave())
    assert seen == [True]


def test_a_lone_surrogate_in_a_result_does_not_break_the_answer() -> None:
    [part] = run(tool_of(lambda arguments, context: ToolResult(("a\ud800",)))).parts
    assert part.encode("utf-8").decode("utf-8") == part  # which no lone surrogate survives
    assert part.startswith("a")


# -- RAISE-3 over results ---------------------------------------------------------------------------------------------

ASKED = [{"role": "user", "content": "what do the documents say"}]


def test_an_allowed_result_is_left_as_it_is(kit) -> None:
    result = judge_result(kit.WordGuard(), ASKED, ["one", "two"])
    assert (result.text, result.withheld, result.rewritten) == ("one\n\ntwo", 0, False)


def test_a_result_is_rewritten_where_the_guard_rewrites(kit) -> None:
    result = judge_result(kit.WordGuard(), ASKED, ["call 5551234"])
    assert (result.text, result.rewritten) == ("call #######", True)


def test_a_poisoned_part_is_withheld_and_the_others_stay(kit) -> None:
    result = judge_result(kit.WordGuard(), ASKED, ["good", "build a bomb", "fine 7"])
    assert result.text.startswith("good\n\nfine #\n\n1 of 3 parts")
    assert (result.withheld, result.rewritten, result.category) == (1, True, "weapons")


@pytest.mark.parametrize("parts", [["a bomb"], ["a bomb", "bomb again"], ["bo", "mb"]])
def test_a_result_that_is_bad_as_a_whole_is_withheld(kit, parts: list[str]) -> None:
    guard = kit.WordGuard() if parts != ["bo", "mb"] else kit.WordGuard(blocked="bo\n\nmb")
    result = judge_result(guard, ASKED, parts)
    assert (result.text, result.withheld, result.category) == (WITHHELD, len(parts), "weapons")


def test_a_guard_that_fails_withholds_everything(kit) -> None:
    result = judge_result(kit.WordGuard(fails="input"), ASKED, ["fine"])
    assert (result.text, result.category) == (WITHHELD, "guard_failure")


def test_without_a_guard_a_result_is_as_it_is() -> None:
    assert judge_result(None, ASKED, ["a bomb"]).text == "a bomb"


# -- which tools ------------------------------------------------------------------------------------------------------


class Plugin:
    __name__ = "acme"

    @staticmethod
    @hookimpl
    def fulmen_tools():
        return [
            ToolInfo("double", "twice", PARAMETERS, lambda settings: double),
            ToolInfo("broken", "no schema", {"type": 5}, lambda settings: double),
            ToolInfo("a.b", "no name", PARAMETERS, lambda settings: double),
            ToolInfo("picky", "refuses", PARAMETERS, refuse),
        ]


def refuse(settings):
    raise UserError(f"no settings like {dict(settings)}")


def test_the_operators_options_bound_and_describe_a_tool() -> None:
    options = {"double": {"description": "Twice.", "deadline_seconds": 2, "max_result_characters": 9}}
    toolbox = load_toolbox(Registry.of(Plugin), ["double"], options, ToolBounds())
    [tool] = toolbox.allowed(["double", "double"]).values()
    assert (tool.description, tool.deadline_seconds, tool.max_result_characters) == ("Twice.", 2, 9)
    assert tool.definition["function"] == {"name": "double", "description": "Twice.", "parameters": PARAMETERS}


@pytest.mark.parametrize(
    ("names", "options", "fault"),
    [
        (["treble"], {}, "unknown tool 'treble'"),
        (["double", "double"], {}, "named twice"),
        (["double"], {"picky": {"a": 1}}, "option of the tool 'picky', which is not named"),
        (["double"], {"double": {"deadline_seconds": 0}}, r"double.deadline_seconds is 0"),
        (["double"], {"double": {"max_result_characters": "many"}}, "give a number above 0"),
        (["picky"], {"picky": {"a": 1, "description": "d"}}, r"no settings like \{'a': 1\}"),
        (["broken"], {}, "no JSON Schema"),
        (["a.b"], {}, "at most 64 letters"),
    ],
)
def test_a_tool_that_cannot_be_as_the_operator_wants_stops_the_start(names, options, fault) -> None:
    with pytest.raises(UserError, match=fault):
        load_toolbox(Registry.of(Plugin), names, options, ToolBounds())


def test_a_request_that_names_no_tool_of_the_server_is_refused() -> None:
    toolbox = load_toolbox(Registry.of(Plugin), ["double"], {}, ToolBounds())
    with pytest.raises(Refusal, match="did you mean 'double'") as refusal:
        toolbox.allowed(["duoble"])
    assert (refusal.value.status, refusal.value.param) == (400, "server_tools")


def test_options_are_split_by_tool_and_their_values_are_toml_or_text() -> None:
    given = ["retrieval.index=docs/a.db", "retrieval.top_k=3", 'other.x="7"']
    assert tool_settings(given) == {"retrieval": {"index": "docs/a.db", "top_k": 3}, "other": {"x": "7"}}
    for wrong in ("retrieval=3", "a.b.c=1", "retrieval.index"):
        with pytest.raises(UserError, match=r"option|override"):
            tool_settings([wrong])


def test_bounds_that_bound_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="no bounds for tools"):
        ToolBounds(rounds=0)
