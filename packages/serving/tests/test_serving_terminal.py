"""Claims about `fulmen chat`: piped, against a server, on a terminal."""

from __future__ import annotations

import io
import os
import pty
import select
import signal
import subprocess
import sys
import time

import pytest

from fulmen_core.cli import main


@pytest.fixture
def server(kit):
    with kit.service(guard=kit.WordGuard()) as service, kit.server(service) as url:
        yield url, service


def chat(monkeypatch, capsys, text, *arguments):
    """Pipe `text` into `fulmen chat`; return code, stdout, stderr."""
    data = text if isinstance(text, bytes) else text.encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), encoding="utf-8"))
    code = main(["chat", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_every_piped_line_is_answered_on_stdout_with_the_history(server, monkeypatch, capsys):
    url, service = server
    code, out, _ = chat(monkeypatch, capsys, "hello\n\nand 中文\n", "--url", url)
    assert (code, out) == (0, "hello\nand 中文\n")
    history = service.engine.core.runner.prompts[-1]
    assert history.index("hello") < history.index("and")


def test_reset_forgets_and_system_is_kept(server, monkeypatch, capsys):
    url, service = server
    lines = "old\n/system be brief\n/reset\nnew\n/system\nlast\n/exit\nnever\n"
    code, out, err = chat(monkeypatch, capsys, lines, "--url", f"{url}/v1/")
    assert (code, out) == (0, "old\nnew\nlast\n")
    prompts = service.engine.core.runner.prompts
    new = next(prompt for prompt in prompts if "new" in prompt)
    assert "be brief" in new
    assert "old" not in new
    assert "be brief" not in prompts[-1]
    assert "system prompt: none" in err


def test_an_unknown_command_is_not_sent(server, monkeypatch, capsys):
    url, service = server
    _, out, err = chat(monkeypatch, capsys, "/rest\n/help\n", "--url", url)
    assert out == ""
    assert "unknown command /rest; did you mean /reset?" in err
    assert "/exit" in err
    assert service.engine.core.runner.steps == 0


def test_the_guard_speaks_on_stdout_and_its_reason_on_stderr(server, monkeypatch, capsys):
    code, out, err = chat(monkeypatch, capsys, "a bomb\nfine\n", "--url", server[0])
    assert (code, out) == (0, "I cannot help with that.\nfine\n")
    assert "the guard ended the answer; this exchange is not remembered" in err


def test_characters_that_end_a_line_elsewhere_are_text(server, monkeypatch, capsys):
    said = "one\u2028two\x85three\x0bfour\x0cfive\x1csix"
    assert chat(monkeypatch, capsys, f"{said}\n", "--url", server[0])[:2] == (0, f"{said}\n")


def test_a_refused_message_is_taken_back_and_told_by_the_exit_code(server, monkeypatch, capsys):
    url, service = server
    code, out, err = chat(monkeypatch, capsys, "x" * 400 + "\nshort\n", "--url", url)
    assert (code, out) == (2, "short\n")
    assert "maximum context length is 128 tokens" in err
    assert "x" * 400 not in service.engine.core.runner.prompts[-1]


def test_no_server_no_model_or_no_text_is_one_sentence(monkeypatch, capsys, server, tmp_path):
    cases = [
        (["--url", "http://127.0.0.1:9"], "hi\n", "no server answers at http://127.0.0.1:9"),
        (["--url", "nonsense"], "hi\n", "no server answers at nonsense"),
        (["--url", f"{server[0]}/elsewhere"], "hi\n", "answers 404"),
        (["--url", server[0]], b"\xff\xfe\n", "not valid utf-8: send UTF-8 text"),
        ([], "hi\n", "needs either --model or --url"),
        (["--url", "http://x", "--model", "y"], "hi\n", "needs either --model or --url"),
        (["--model", str(tmp_path / "none"), "--no-guard"], "hi\n", "does not exist"),
    ]
    for arguments, text, sentence in cases:
        code, out, err = chat(monkeypatch, capsys, text, *arguments)
        assert (code, out) == (2, ""), arguments
        assert sentence in err
        assert err.strip().splitlines()[-1].startswith("fulmen: error: ")


def test_a_model_in_this_process_answers_repeatably(nano_directory, monkeypatch, capsys):
    arguments = ("--model", str(nano_directory), "--no-guard", "--backend", "cpu", "--max-tokens", "6", "--seed", "5")
    code, out, err = chat(monkeypatch, capsys, "hello\n", *arguments)
    assert code == 0
    assert "warning: serving without a guard" in err
    assert chat(monkeypatch, capsys, "hello\n", *arguments)[1] == out


def test_ctrl_c_stops_the_answer_and_not_the_chat(kit):
    runner = kit.runner(seconds=0.1)
    with kit.service(runner) as service, kit.server(service) as url:
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "fulmen_core", "chat", "--url", url]
        process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            close_fds=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - a background job is deaf
        )
        os.close(slave)
        screen = b""

        def see(words, seconds=20):
            nonlocal screen
            deadline = time.monotonic() + seconds
            while words not in screen:
                assert time.monotonic() < deadline, screen
                if select.select([master], [], [], 0.1)[0]:
                    screen += os.read(master, 4096)
            screen = screen[screen.index(words) + len(words) :]

        try:
            see(b"Talking to parrot")
            see(b"you> ")
            os.write(master, b"one two three four five six seven eight nine ten eleven twelve\n")
            see(b"twelve")  # the echo of what was typed
            see(b"one two")
            process.send_signal(signal.SIGINT)
            see(b"[stopped]")
            kit.wait_until(lambda: service.engine.admission.live == 0, "the server stopped too")
            see(b"you> ")
            process.send_signal(signal.SIGINT)
            see(b"/exit or Ctrl-D leaves")
            os.write(master, b"again\n")
            see(b"again")
            see(b"again")
            see(b"you> ")
            os.write(master, b"\x04")
            assert process.wait(10) == 0
        finally:
            process.kill()
            process.wait()
            os.close(master)
    assert "twelve" not in runner.prompts[-1].split("assistant")[1], "only what was said before the stop is remembered"
