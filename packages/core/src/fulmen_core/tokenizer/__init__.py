"""Text to token ids and back, and conversations to ChatML.

In: text, conversations, a directory with tokenizer.json. Out: token ids, bytes, streamed text.
May import: the `tokenizers` library and `fulmen_core.files`; never torch.
"""

from fulmen_core.tokenizer.bpe import Tokenizer
from fulmen_core.tokenizer.chat import CHATML_TEMPLATE, ROLES
from fulmen_core.tokenizer.stream import StreamDecoder

__all__ = ["CHATML_TEMPLATE", "ROLES", "StreamDecoder", "Tokenizer"]
