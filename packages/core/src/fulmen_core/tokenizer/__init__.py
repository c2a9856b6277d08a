"""Text to token ids and back, and conversations through chat templates.

In: text, conversations, a directory with tokenizer.json. Out: token ids, bytes, streamed text.
May import: the `tokenizers` and `jinja2` libraries and `fulmen_core.files`; never torch.
"""

from fulmen_core.tokenizer.bpe import ByteLevelTokenizer
from fulmen_core.tokenizer.chat import CHATML_TEMPLATE, ROLES
from fulmen_core.tokenizer.loading import load_tokenizer
from fulmen_core.tokenizer.stream import StreamDecoder
from fulmen_core.tokenizer.tokenizer import Tokenizer

__all__ = ["CHATML_TEMPLATE", "ROLES", "ByteLevelTokenizer", "StreamDecoder", "Tokenizer", "load_tokenizer"]
