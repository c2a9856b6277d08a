"""Claims about streams: the same however their bytes are cut, and with what other servers send beside text."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

EVENTS = 'data: {"a": "é中"}\n\n: a comment\n\nevent: x\ndata: one\ndata: two\r\n\r\ndata:bare\r\rdata: [DONE]\n\n'

#: Reads EVENTS cut at every pair of places, in the page's own module.
CUT_EVERYWHERE = """async (text) => {
  const { serverEvents } = await import('/page/server/sse.js');
  const bytes = new TextEncoder().encode(text);
  const read = async (pieces) => {
    const found = [];
    const body = new ReadableStream({ start(sink) { for (const piece of pieces) sink.enqueue(piece); sink.close(); } });
    for await (const data of serverEvents(body)) found.push(data);
    return JSON.stringify(found);
  };
  const all = new Set();
  for (let one = 0; one <= bytes.length; one += 1)
    for (let two = one; two <= bytes.length; two += 1)
      all.add(await read([bytes.slice(0, one), bytes.slice(one, two), bytes.slice(two)]));
  return [...all];
}"""


def test_events_are_the_same_however_their_bytes_are_cut(parrot, open_page):
    page = open_page(parrot)
    [only] = page.evaluate(CUT_EVERYWHERE, EVENTS)
    assert json.loads(only) == ['{"a": "é中"}', "one\ntwo", "bare", "[DONE]"]


def delta(**fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


def end(reason):
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


def called(index, **function):
    return {"index": index, "function": function} | ({"id": f"call_{index}"} if "name" in function else {})


CALLS = [
    delta(role="assistant", reasoning_content="The user asks "),
    delta(reasoning="for the weather."),
    delta(content="Let me look."),
    delta(tool_calls=[called(0, name="weather", arguments="")]),
    delta(tool_calls=[called(0, arguments='{"city": "<b>')]),
    delta(tool_calls=[called(0, arguments='Paris</b>"}'), called(1, name="time", arguments="{}")]),
    end("tool_calls"),
]
SEARCHED = [
    delta(server_tools=[{"id": "s1", "name": "search", "arguments": '{"q": "x"}', "status": "running"}]),
    delta(
        server_tools=[{"id": "s1", "name": "search", "arguments": '{"q": "x"}', "status": "ok", "content": "found it"}]
    ),
    delta(content="It is sunny."),
    end("stop"),
]


@contextlib.contextmanager
def another_server(*answers):
    """A server as others are: its answers in order, as vLLM streams them. Yields its URL and the requests it got."""
    asked, left = [], list(answers)

    class Handler(BaseHTTPRequestHandler):
        def reply(self, kind, body):
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Access-Control-Allow-Origin", "*")
            self.send_header("Access-Control-Allow-Headers", "*")
            self.end_headers()
            self.wfile.write(body)

        def do_OPTIONS(self):
            self.reply("text/plain", b"")

        def do_GET(self):
            self.reply("application/json", b'{"data": [{"id": "thinker"}]}')

        def do_POST(self):
            asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            lines = [json.dumps(chunk) for chunk in left.pop(0)] + ["[DONE]"]
            self.reply("text/event-stream", "".join(f"data: {line}\n\n" for line in lines).encode())

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def test_reasoning_is_folded_tools_are_shown_and_their_results_given(parrot, open_page):
    with another_server(CALLS, SEARCHED) as (url, asked):
        page = open_page(parrot, path="/#/compare", also=(url,))
        side = page.get_by_role("region", name="Right")
        side.get_by_label("Server").select_option(label="Another server")
        side.get_by_label("Address, OpenAI-compatible").fill(url)
        side.get_by_role("button", name="Connect").click()
        side.get_by_role("combobox", name="Model").locator("option", has_text="thinker").wait_for(state="attached")
        page.get_by_role("textbox", name="Message").fill("weather?")
        page.keyboard.press("Enter")

        reasoning = side.locator(".reasoning-text")
        side.get_by_text("Reasoning", exact=True).wait_for()
        assert not reasoning.is_visible()
        side.get_by_text("Reasoning", exact=True).click()
        assert reasoning.inner_text() == "The user asks for the weather."
        assert side.locator(".tool-call code").first.text_content() == '{\n  "city": "<b>Paris</b>"\n}'

        side.get_by_label("Result of weather").fill("sunny")
        side.get_by_role("button", name="Give the result").first.click()
        side.get_by_label("Result of weather").wait_for(state="detached")
        assert len(asked) == 1  # a call is still open
        side.get_by_label("Result of time").fill("noon")
        side.get_by_role("button", name="Give the result").click()
        side.locator(".prose", has_text="It is sunny.").wait_for()
        assert [message["role"] for message in asked[1]["messages"]] == ["user", "assistant", "tool", "tool"]
        calls = asked[1]["messages"][1]["tool_calls"]
        assert (
            [call["id"] for call in calls]
            == ["call_0", "call_1"]
            == [m["tool_call_id"] for m in asked[1]["messages"][2:]]
        )
        assert json.loads(calls[0]["function"]["arguments"]) == {"city": "<b>Paris</b>"}

        side.get_by_text("The server ran search").click()
        side.get_by_text("found it").wait_for()
