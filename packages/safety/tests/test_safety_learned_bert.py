"""The small BERT: NumPy computes what transformers does, words are cut as the published tokenizer cuts them, and it is
stored as it is computed with.
"""

from __future__ import annotations

import unicodedata
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from fulmen_core.errors import UserError
from fulmen_safety.learned import four_bits
from fulmen_safety.learned.artefact import read, write
from fulmen_safety.learned.bert import LONGEST, Bert, Guess, from_tensors, tensors
from fulmen_safety.learned.bert_weights import of_transformers, read_bert, write_bert
from fulmen_safety.learned.calibration import Curve
from fulmen_safety.learned.linear_model import NO_CATEGORIES, LinearModel
from fulmen_safety.learned.window_detector import WindowDetector
from fulmen_safety.learned.wordpiece import SPECIAL, WordPiece

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PIECES = (
    "[PAD]",
    *SPECIAL,
    *LETTERS,
    *(f"##{one}" for one in LETTERS),
    "th",
    "the",
    "##er",
    "bo",
    "##mb",
    "!",
    ".",
    "é",
    "炸",
)
CURVE = Curve(slope=1.0, offset=0.0, slope_interval=(1.0, 1.0), offset_interval=(0.0, 0.0), examples=0)


def random_bert(seed: int, layers: int = 2):  # type: ignore[no-untyped-def]
    """A BERT of transformers with random weights, as storing rounds them, its head, and the same for NumPy."""
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(PIECES), hidden_size=32, num_hidden_layers=layers, num_attention_heads=4, intermediate_size=64,
        hidden_act="gelu_pytorch_tanh", attn_implementation="eager",
    )  # fmt: skip
    model, head = transformers.BertModel(config, add_pooling_layer=False).eval(), torch.nn.Linear(32, 1)
    with torch.no_grad():
        for parameter in [*model.parameters(), *head.parameters()]:
            parameter.add_(torch.randn_like(parameter) * 0.2)
            if parameter.ndim == 2 and parameter.shape[0] > 1:
                parameter.copy_(torch.from_numpy(four_bits.widened(*four_bits.rounded(parameter.numpy()))))
            else:
                parameter.copy_(parameter.half())
    state = {name: value.numpy() for name, value in model.state_dict().items()}
    head_D, bias = head.weight[0].detach().numpy(), head.bias.item()
    return model, head, of_transformers(state, head_D, bias, heads=4, pieces=PIECES, rows_V=range(len(PIECES)))


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("words", [0, 1, 9, 200])
def test_numpy_computes_what_transformers_does(layers: int, words: int) -> None:
    model, head, bert = random_bert(words + layers, layers)
    chance = np.random.default_rng(words)
    text = " ".join("".join(chance.choice(list("xyz059"), 5)) for _ in range(words))
    ids = torch.tensor([bert.wordpiece.ids(text, LONGEST)])
    assert ids.shape[1] == min(5 * words + 2, LONGEST)
    with torch.no_grad():
        expected = head(model(ids).last_hidden_state.mean(1)).item()
    assert bert.margin(text) == pytest.approx(expected, abs=5e-3)


def test_it_is_stored_without_loss() -> None:
    _, _, bert = random_bert(5)
    stored = from_tensors(tensors(bert))
    assert stored.margin("the bomb is theirs!") == pytest.approx(bert.margin("the bomb is theirs!"), abs=1e-5)
    assert from_tensors(tensors(stored)).margin("other words") == stored.margin("other words")


def test_a_guess_stands_if_it_is_low_and_else_changes_nothing() -> None:
    _, _, bert = random_bert(8)
    weight_D = np.random.default_rng(8).standard_normal(32).astype(np.float16).astype(np.float32)
    first_TD = next(bert.states("the bomb"))
    guessed = float(first_TD.mean(0) @ weight_D) + 0.5
    for below, expected in ((guessed + 0.1, guessed), (guessed - 0.1, bert.margin("the bomb"))):
        hasty = from_tensors(tensors(replace(bert, guess=Guess(weight_D, 0.5, below))))
        assert hasty.margin("the bomb") == pytest.approx(expected, abs=1e-4)


def test_an_artefact_holds_it(tmp_path: Path) -> None:
    weights, one = np.zeros(1 << 10, np.int8), np.ones(1, np.float32)
    _, _, bert = random_bert(6)
    model = LinearModel(weights, NO_CATEGORIES, one, one, ("violent_crime",), {"*": CURVE}, 60, bert, 1.0)
    write(tmp_path / "model", model, {})
    stored = read(tmp_path / "model")
    assert isinstance(stored.encoder, Bert)
    text = "Over there. The others bother the mob."
    assert WindowDetector("d", stored, 0.0).scores(text)["violent_crime"] == pytest.approx(
        stored.probability(text, stored.encoder.margin(text))
    )


def test_weights_in_a_file_are_read_and_others_refused(tmp_path: Path) -> None:
    _, _, bert = random_bert(7)
    write_bert(tmp_path / "bert.safetensors", bert)
    assert read_bert(tmp_path / "bert.safetensors").margin("the") == pytest.approx(bert.margin("the"), abs=1e-5)
    with pytest.raises(UserError, match="cannot read it"):
        read_bert(tmp_path / "none.safetensors")
    safetensors.numpy.save_file({"other": np.ones(3)}, str(tmp_path / "other.safetensors"))
    with pytest.raises(UserError, match="no weights of an encoder"):
        read_bert(tmp_path / "other.safetensors")
    wide = tensors(bert) | {"bert.words": bert.words}  # not two in a byte
    damaged = tensors(bert) | {"bert.vocabulary": np.zeros(9, np.uint8)}
    for named in (wide, damaged):
        safetensors.numpy.save_file(named, str(tmp_path / "wrong.safetensors"))
        with pytest.raises(UserError, match="no weights of an encoder"):
            read_bert(tmp_path / "wrong.safetensors")


def test_a_vocabulary_that_is_not_compressed_is_read_too() -> None:
    _, _, bert = random_bert(8)
    older = tensors(bert)
    del older["bert.vocabulary"]
    older["bert.pieces"] = np.frombuffer("\n".join(bert.wordpiece.pieces).encode(), np.uint8)
    assert from_tensors(older).wordpiece.pieces == from_tensors(tensors(bert)).wordpiece.pieces == bert.wordpiece.pieces


def test_words_are_cut_as_the_published_tokenizer_does() -> None:
    """Of texts of any letters, signs and blanks: the same pieces as `transformers.BertTokenizer`."""
    vocabulary = {piece: place for place, piece in enumerate(PIECES)}
    theirs = transformers.BertTokenizer(vocab=vocabulary, do_lower_case=True)
    ours = WordPiece(PIECES)
    chance = np.random.default_rng(0)
    old = unicodedata.ucd_3_2_0  # the published tokenizer's tables are older than Python's
    odd = [
        chr(code)
        for code in chance.integers(0x20, 0x2FFF, 900)
        if unicodedata.category(chr(code)) == old.category(chr(code)) not in ("Cn", "Co", "Cs")
    ]
    alphabet = [*"abcehmorst0123  !_-\n\tÉéßİΣ炸弹，", *odd]
    for _ in range(400):
        text = "".join(chance.choice(alphabet, int(chance.integers(0, 40))))
        assert ours.ids(text, 1000) == theirs(text)["input_ids"], repr(text)


def test_a_long_word_is_unknown_and_a_long_text_cut() -> None:
    wordpiece = WordPiece(PIECES)
    unknown, start, end = (PIECES.index(one) for one in SPECIAL)
    assert wordpiece.ids("a" * 101, 9) == [start, unknown, end]
    assert wordpiece.ids("the " * 50, 10) == [start, *[PIECES.index("the")] * 8, end]
