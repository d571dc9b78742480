"""Decoding of tokens that are pieces of text, or bytes of a character."""

import codecs
from collections.abc import Sequence

from reallm.protocols import TextState


class SurfaceTokenizer:
    """A tokenizer whose tokens have a surface each: text with its spaces, or bytes of UTF-8. Subclasses set ``surfaces``."""

    surfaces: Sequence[str | bytes]

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text; bytes that form no character show as U+FFFD, an incomplete character at the end not at all."""
        state, parts = TextState(), []
        for token_id in token_ids:
            part, state = self.decode_step(token_id, state)
            parts.append(part)
        return "".join(parts).rstrip(" ")

    def decode_step(self, token_id: int, state: TextState) -> tuple[str, TextState]:
        """The piece, without leading spaces before all text; a character of several tokens comes with its last."""
        surface = self.surfaces[token_id]
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.setstate((state.pending, 0))
        text = decoder.decode(surface) if isinstance(surface, bytes) else decoder.decode(b"", final=True) + surface
        if not state.started:
            text = text.lstrip(" ")
        return text, TextState(state.started or bool(text), decoder.getstate()[0])
