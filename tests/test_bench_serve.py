"""The server benchmark drives a real `fulmen serve`, prints the promised keys, and leaves no server behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fulmen_core.tokenizer import ByteLevelTokenizer

BENCH = Path(__file__).parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import serve  # noqa: E402 - the benchmark is a folder of scripts, not a distribution
from serving.server_kinds import SERVERS, Contender, Room, start_command  # noqa: E402
from serving.server_process import ServerError, ServerProcess, free_port  # noqa: E402

PROMISED = {"clients", "tokens_per_s", "ratio_vs_vllm_cpu", "ratio_vs_llama_server", "ttft_p95_ms", "busy"}
CORES = sorted(os.sched_getaffinity(0))[:2]


def test_cells_of_a_real_server_have_the_promised_keys(models: Path, tmp_path: Path) -> None:
    (tmp_path / "S").mkdir()
    words = {"model": {"vocab": {"\u0120the": ByteLevelTokenizer.load(models / "cpu").encode("a the")[-1]}}}
    (tmp_path / "S" / "served").mkdir()
    (tmp_path / "S" / "served" / "tokenizer.json").write_text(json.dumps(words))
    sizes = ["--prompt-tokens", "120", "--output-tokens", "6", "--first-turn-tokens", "140", "--conversations", "2"]
    args = serve._parse(["--shape", "S", "--clients", "1,2", "--requests", "4", "--work", str(tmp_path), *sizes])
    fulmen = Contender("fulmen", "bf16")
    random, turns = (
        serve._measure(fulmen, Path(sys.executable), models / "cpu", kind, CORES, args)
        for kind in ("random", "multi-turn")
    )
    serve._add_ratios([*random, *turns])
    for cell, clients, answers, tokens in zip([*random, *turns], (1, 2, 1), (4, 4, 4), (6, 6, 16), strict=True):
        assert set(cell) >= PROMISED
        assert (cell["clients"], cell["ratio_vs_vllm_cpu"], cell["ratio_vs_llama_server"]) == (clients, None, None)
        assert cell["tokens_per_s"] > 0
        assert 0 < cell["busy"] <= 1
        assert (cell["completed"], cell["output_tokens"], cell["errors"]) == (answers, answers * tokens, {})
        json.dumps(cell)
    assert turns[0]["second_turn_ratio"] == turns[0]["second_turn_ttft_ms"] / turns[0]["cold_ttft_ms"] > 0


def test_ratios_are_over_the_peer_with_as_many_clients_and_bits_in_the_same_traffic() -> None:
    speeds = {
        ("fulmen", "bf16", "random", 1): 90.0,
        ("fulmen", "bf16", "random", 8): 300.0,
        ("fulmen", "int8", "random", 8): 400.0,
        ("fulmen", "bf16", "multi-turn", 8): 20.0,
        ("vllm", "bf16", "random", 1): 30.0,
        ("llama-server", "bf16", "random", 8): 100.0,
        ("llama-server", "q8_0", "random", 8): 160.0,
    }
    names = ("server", "weights", "traffic", "clients")
    cells = [dict(zip(names, place, strict=True)) | {"tokens_per_s": speed} for place, speed in speeds.items()]
    serve._add_ratios(cells)
    assert [cell["ratio_vs_vllm_cpu"] for cell in cells] == [3.0, None, None, None, 1.0, None, None]
    assert [cell["ratio_vs_llama_server"] for cell in cells] == [None, 3.0, 2.5, None, None, 1.0, 1.0]


def test_servers_are_named_with_or_without_their_weights() -> None:
    asked = serve._parse(["--servers", "fulmen,llama-server:q8_0"]).servers
    assert [one.label for one in asked] == ["fulmen-bf16", "fulmen-int8", "llama-server-q8_0"]
    with pytest.raises(SystemExit):
        serve._parse(["--servers", "vllm:q8_0"])


def test_no_server_keeps_prefixes_but_where_second_turns_are_measured() -> None:
    off = {"fulmen": "--cached-prefixes", "vllm": "--no-enable-prefix-caching", "llama-server": "--no-cache-prompt"}
    for name, weights in SERVERS.items():
        for prefixes in (False, True):
            room = Room(8, 300, prefixes)
            command, _ = start_command(Contender(name, weights[0]), Path("x"), Path("m"), 1, room, (0, 1), ())
            assert (off[name] in command) is not prefixes


def test_a_server_is_gone_when_it_is_no_longer_wanted(tmp_path: Path) -> None:
    with ServerProcess(
        [sys.executable, "-c", "import time; time.sleep(60)"], free_port(), CORES, tmp_path / "log", {}
    ) as server:
        pid = server._process.pid
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)


def test_a_server_that_ends_is_one_sentence(tmp_path: Path) -> None:
    with (
        ServerProcess(
            [sys.executable, "-c", "raise SystemExit(3)"], free_port(), CORES, tmp_path / "log", {}
        ) as server,
        pytest.raises(ServerError, match="the server ended with exit code 3"),
    ):
        server.wait_ready(30)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda sign: sign.name)
def test_the_server_and_its_children_die_with_the_driver_however_it_dies(tmp_path: Path, sign: signal.Signals) -> None:
    server = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""
    log = tmp_path / "log"
    code = f"""
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
sys.path.insert(0, {str(BENCH)!r})
from pathlib import Path
from serving.server_process import ServerProcess
log = Path({str(log)!r})
with ServerProcess([sys.executable, "-c", {server!r}], 1, {CORES!r}, log, {{}}) as server:
    while not log.read_text():
        time.sleep(0.01)
    print(server._process.pid, server._process._watchdog._process.pid, flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as driver:
        assert driver.stdout is not None
        group, watchdog = map(int, driver.stdout.readline().split())
        child = int(log.read_text())
        assert os.getpgid(child) == group
        driver.send_signal(sign)
        driver.wait(30)
    deadline = time.monotonic() + 10
    while any(runs(pid) for pid in (group, child, watchdog)):
        assert time.monotonic() < deadline, "a process outlived its driver"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    """Whether the process is there and no zombie that nobody has waited for yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
