"""The server benchmark drives a real `fulmen serve`, prints the promised keys, and leaves no server behind."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"
sys.path.insert(0, str(BENCH))

import serve  # noqa: E402 - the benchmark is a folder of scripts, not a distribution
from serving.server_process import ServerError, ServerProcess, free_port  # noqa: E402

PROMISED = {"clients", "tokens_per_s", "ratio_vs_vllm_cpu", "ratio_vs_llama_server", "ttft_p95_ms", "busy"}
CORES = sorted(os.sched_getaffinity(0))[:2]


def test_cells_of_a_real_server_have_the_promised_keys(models: Path, tmp_path: Path) -> None:
    asked = argparse.Namespace(prompt_tokens=120, output_tokens=6, requests=4, guard=False, fulmen_options=[])
    port = free_port()
    command, environment = serve._command("fulmen", Path(sys.executable), models / "cpu", port, 2, CORES, asked)
    with ServerProcess(command, port, CORES, tmp_path / "log", environment) as server:
        assert server.wait_ready(60) > 0
        pid = server._process.pid
        cells = [serve._cell("fulmen", server.url, clients, asked) for clients in (1, 2)]
    with pytest.raises(ProcessLookupError):
        os.killpg(pid, 0)
    serve._add_ratios(cells)
    for cell, clients in zip(cells, (1, 2), strict=True):
        assert set(cell) >= PROMISED
        assert (cell["clients"], cell["ratio_vs_vllm_cpu"], cell["ratio_vs_llama_server"]) == (clients, None, None)
        assert cell["tokens_per_s"] > 0
        assert 0 < cell["busy"] <= 1
        assert cell["completed"] + cell["errors"].get("no_text", 0) == 4  # random weights may choose the end at once
        json.dumps(cell)


def test_ratios_are_over_the_peer_with_as_many_clients() -> None:
    speeds = {("fulmen", 1): 90.0, ("fulmen", 8): 300.0, ("vllm", 1): 30.0, ("llama", 8): 100.0}
    cells = [{"server": name, "clients": n, "tokens_per_s": speed} for (name, n), speed in speeds.items()]
    serve._add_ratios(cells)
    assert [cell["ratio_vs_vllm_cpu"] for cell in cells] == [3.0, None, 1.0, None]
    assert [cell["ratio_vs_llama_server"] for cell in cells] == [None, 3.0, None, 1.0]


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
