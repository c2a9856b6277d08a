"""The servers that are measured: in which weights each runs here, where it is installed, and how it is started."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from inference.engines import find

#: The weights of each server, the like-for-like ones first. A peer's cell is compared with Fulmen's of as many bits.
SERVERS = {"fulmen": ("bf16", "int8"), "vllm": ("bf16",), "llama-server": ("bf16", "q8_0")}
#: Where one says that it can answer, if not at ``/v1/models``, which llama.cpp's has before its model is loaded.
READY = {"llama-server": "/health"}
BITS = {"bf16": 16, "int8": 8, "q8_0": 8}


@dataclass(frozen=True, slots=True)
class Contender:
    """A server with weights of one kind."""

    server: str
    weights: str

    @property
    def label(self) -> str:
        """``server-weights``, as messages and logs name it."""
        return f"{self.server}-{self.weights}"


@dataclass(frozen=True, slots=True)
class Room:
    """What a server is to hold: `sequences` answers at once, `context` tokens each, and whether prefixes are kept."""

    sequences: int
    context: int
    prefixes: bool


def find_servers(peers: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """What starts each server, an interpreter or a program, and why the others are left out.

    llama.cpp's server is looked for in ``peers/llama-server/bin``, as `bench/peers/install.py` places it, then in PATH.
    transformers is found too: it writes the weights.
    """
    found, missing = find(peers, {})
    own = peers / "llama-server" / "bin" / "llama-server"
    program = str(own) if own.exists() else shutil.which("llama-server")
    if program:
        found["llama-server"] = Path(program)
    else:
        remedy = f"`python bench/peers/install.py llama-server --into {peers}` builds it"
        missing["llama-server"] = f"there is no program {own}; {remedy}"
    return found, missing


def start_command(
    one: Contender,
    program: Path,
    model: Path,
    port: int,
    room: Room,
    cores: Sequence[int],
    fulmen_options: Sequence[str],
) -> tuple[list[str], dict[str, str]]:
    """The command that serves `model` as ``bench`` on 127.0.0.1, and its environment."""
    if one.server == "fulmen":
        options = ["--dtype", "bfloat16", *(["--quantize", "int8"] if one.weights == "int8" else [])]
        options += ["--backend", "cpu", "--max-sequences", str(room.sequences), "--max-context", str(room.context)]
        options += [] if room.prefixes else ["--cached-prefixes", "0"]
        options += ["--port", str(port), "--name", "bench", *fulmen_options]
        command = [str(program), "-m", "fulmen_core", "--threads", str(len(cores)), "serve", "--model", str(model)]
        return [*command, *options], {}
    if one.server == "vllm":
        options = ["--dtype", "bfloat16", "--host", "127.0.0.1", "--port", str(port), "--served-model-name", "bench"]
        options += ["--max-model-len", str(room.context), "--max-num-seqs", str(room.sequences), "--seed", "0"]
        options += ["--enable-prefix-caching" if room.prefixes else "--no-enable-prefix-caching"]
        environment = {
            "VLLM_CPU_KVCACHE_SPACE": "2",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores)),
        }
        return [str(program), "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), *options], environment
    context = room.sequences * (-(-room.context // 256) * 256)  # it divides what it is given among its slots
    threads = str(len(cores))
    options = ["--host", "127.0.0.1", "--port", str(port), "--alias", "bench", "--threads", threads]
    options += ["--threads-batch", threads, "--parallel", str(room.sequences), "--ctx-size", str(context)]
    options += ["--reasoning-format", "none", "--offline", "--no-webui"]
    options += [] if room.prefixes else ["--no-cache-prompt", "--cache-ram", "0", "--ctx-checkpoints", "0"]
    return [str(program), "--model", str(model), *options], {}
