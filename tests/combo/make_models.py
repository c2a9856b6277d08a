"""Write a nano checkpoint with a tokenizer, and an artefact for each backend that serves one."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import torch

from fulmen_core.export.options import ExportOptions
from fulmen_core.model.checkpoint import save_model
from fulmen_core.model.presets import load_preset
from fulmen_core.model.transformer import Transformer
from fulmen_core.registry import Registry
from fulmen_core.tokenizer import ByteLevelTokenizer

#: Format of an artefact, and the backend that serves it.
ARTEFACTS = {"onnx": "onnxruntime"}


def main(out: Path) -> None:
    torch.manual_seed(0)
    checkpoint = out / "cpu"
    shutil.rmtree(out, ignore_errors=True)
    checkpoint.mkdir(parents=True)
    text = [path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parents[2].glob("docs/**/*.md"))]
    tokenizer = ByteLevelTokenizer.train(text, 1024)
    tokenizer.save(checkpoint)
    config = load_preset("nano").model_copy(
        update={"vocab_size": tokenizer.vocab_size, "eos_token_id": [tokenizer.im_end_id, tokenizer.eos_id]}
    )
    save_model(Transformer(config), checkpoint)
    for format, backend in ARTEFACTS.items():
        Registry.discover().exporter(format).export(checkpoint, out / backend, ExportOptions())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
