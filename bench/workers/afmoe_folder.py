"""Write a Hugging Face folder with random AFMoE weights and a byte-level tokenizer: the one source of every engine.

Run by the driver in an environment that has transformers: ``afmoe_folder.py CONFIG_JSON OUT``.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

SEED = 20_261_125


def main(config_json: str, out: str) -> None:
    """Write the folder under a temporary name, then rename it: half a folder never looks like one."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AfmoeConfig, AfmoeForCausalLM, PreTrainedTokenizerFast

    torch.manual_seed(SEED)
    model = AfmoeForCausalLM._from_config(AfmoeConfig(**json.loads(config_json)), dtype=torch.bfloat16)
    model.generation_config.pad_token_id = 0
    for name, weight in model.named_parameters():
        if name.endswith("router.gate.weight"):  # zeros by default: every token would choose the same experts
            torch.nn.init.normal_(weight, std=model.config.initializer_range)
    unfinished = Path(out + ".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    model.save_pretrained(unfinished)

    text = Tokenizer(models.BPE())
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    text.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    text.train_from_iterator([str(torch.nn.Module.__doc__), str(json.__doc__)], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=text, pad_token="<pad>", bos_token="<s>", eos_token="</s>")
    tokenizer.save_pretrained(unfinished)

    # Said in the released checkpoints' config.json and read by vLLM; transformers' class knows no other choice.
    config_file = unfinished / "config.json"
    config = json.loads(config_file.read_text())
    config |= {"score_func": "sigmoid", "route_norm": True, "n_group": 1, "topk_group": 1}
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    unfinished.rename(out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
