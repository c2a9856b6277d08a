"""Signals are heard whatever has been loaded and let go."""

from __future__ import annotations

import subprocess
import sys

from fulmen_testing.exporter.exported import Exported

PROGRAM = """
import gc, os, signal, sys
from pathlib import Path
from fulmen_backend_openvino.runner import OpenVinoRunner
from fulmen_core.backend import EngineLimits

limits = EngineLimits(max_sequences=1, max_context=64, threads=1)
runners = [OpenVinoRunner(Path(sys.argv[1]), limits) for _ in range(3)]
while runners:
    runners.pop(0).close()
    gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGINT)
"""


def test_a_signal_is_heard_after_runners_that_went_in_the_order_in_which_they_came(exported: Exported) -> None:
    command = [sys.executable, "-c", PROGRAM, str(exported.artefact)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
