"""Carries the times of an alignment to the tokens of another vocabulary.

The rule, on the characters that the two share:

1. The span of a source token is divided evenly among its characters, spaces not counted; of a token that is nothing but
   spaces, among those.
2. A target token begins with the first and ends with the last of its characters, spaces not counted.
3. A target token that is nothing but spaces lasts as long as these, where the source has tokens for them; else from the
   end of the character before it to the begin of the one after it.
4. A target token without any characters, such as all but the last byte piece of one character, takes the span of the
   next character, so that it is never due before its text, nor after it.
5. A source token's score is divided evenly as well, that of a token without characters goes to the next one that has some; the
   score of the whole path stays.

White space is compared as one space, at the ends as none. Tokens of the same texts keep their times as they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from reallm.errors import InputError
from reallm.protocols import TextState, Tokenizer
from reallm.types import Alignment, Word


@dataclass(frozen=True)
class _Character:
    text: str
    start: int | None  # samples; None = a space that no source token times
    end: int | None
    score: float


def token_pieces(tokenizer: Tokenizer, token_ids: Sequence[int]) -> list[str]:
    """The text that each token adds: joined, they are the decoded text, up to spaces at the end."""
    state, pieces = TextState(), []
    for token_id in token_ids:
        piece, state = tokenizer.decode_step(int(token_id), state)
        pieces.append(piece)
    return pieces


def retokenize(alignment: Alignment, pieces_from: Sequence[str], tokenizer_to: Tokenizer) -> Alignment:
    """The same text in tokens of ``tokenizer_to``, with the times of ``alignment`` by the rule above.

    Args:
        alignment: of U tokens.
        pieces_from: their U texts, spaces between words included (:func:`token_pieces`).
        tokenizer_to: whose tokens are wanted.

    Raises InputError when ``tokenizer_to`` does not give the same text back.
    """
    text = " ".join("".join(pieces_from).split())
    return spread(alignment, pieces_from, tokenizer_to, tokenizer_to.encode(text))


def spread(alignment: Alignment, pieces_from: Sequence[str], tokenizer_to: Tokenizer, token_ids: Sequence[int]) -> Alignment:
    """:func:`retokenize` onto given tokens ``token_ids``. Raises InputError when their text is not that of ``pieces_from``."""
    pieces_to = token_pieces(tokenizer_to, token_ids)
    text_from, text_to = (" ".join("".join(pieces).split()) for pieces in (pieces_from, pieces_to))
    if text_from != text_to:
        raise InputError(f"alignment of {text_from!r} does not fit the text {text_to!r}: align the same transcript")
    if token_ids and not text_to:
        raise InputError(f"the tokens {list(token_ids)} have no text: give tokens that do")
    if list(pieces_from) == pieces_to:
        return replace(alignment, token_ids=torch.tensor([int(i) for i in token_ids], dtype=torch.int64))
    characters = _fill(_characters(alignment, pieces_from))
    rows = _target_rows(characters, pieces_to)
    return Alignment(
        torch.tensor([int(i) for i in token_ids], dtype=torch.int64),
        torch.tensor([start for start, _, _ in rows], dtype=torch.int64),
        torch.tensor([end for _, end, _ in rows], dtype=torch.int64),
        torch.tensor([score for _, _, score in rows], dtype=torch.float64),
        alignment.sample_rate,
        alignment.score,
    )


def word_times(alignment: Alignment, pieces: Sequence[str]) -> list[Word]:
    """The words of an alignment whose tokens have the texts ``pieces``: each lasts as long as its characters."""
    words: list[list[_Character]] = [[]]
    for c in _characters(alignment, pieces):
        if c.text == " ":
            words.append([])
        else:
            words[-1].append(c)
    rate = alignment.sample_rate
    return [Word("".join(c.text for c in word), (word[0].start or 0) / rate, (word[-1].end or 0) / rate) for word in words if word]


def _characters(alignment: Alignment, pieces: Sequence[str]) -> list[_Character]:
    """The characters of the whitespace-normalized text with their times (rule 1)."""
    spans = zip(alignment.start_samples.tolist(), alignment.end_samples.tolist(), alignment.scores.tolist(), strict=True)
    found: list[_Character] = []
    carried = 0.0
    for piece, (start, end, score) in zip(pieces, spans, strict=True):
        score, carried = (score + carried, 0.0) if piece else (0.0, score + carried)
        silent = bool(piece.strip())  # spaces beside letters take no time
        timed = [i for i, c in enumerate(piece) if not (silent and c.isspace())]
        place = {i: k for k, i in enumerate(timed)}
        for i, character in enumerate(piece):
            if i in place:
                k, n = place[i], len(timed)
                cut = [start + (end - start) * j // n for j in (k, k + 1)]
                found.append(_Character(" " if character.isspace() else character, cut[0], cut[1], score / n))
            else:
                found.append(_Character(" ", None, None, 0.0))
    if carried and found:
        found[-1] = replace(found[-1], score=found[-1].score + carried)
    return _one_space(found)


def _one_space(characters: list[_Character]) -> list[_Character]:
    """Runs of spaces as one that spans them, none at the ends."""
    kept: list[_Character] = []
    for c in characters:
        if c.text == " " and kept and kept[-1].text == " ":
            last = kept.pop()
            start = c.start if last.start is None else last.start
            kept.append(_Character(" ", start, last.end if c.end is None else c.end, last.score + c.score))
        elif c.text != " " or kept:
            kept.append(c)
    return kept[:-1] if kept and kept[-1].text == " " else kept


def _fill(characters: list[_Character]) -> list[tuple[str, int, int, float]]:
    """Spaces that the source does not time fill the gap between their neighbours (rule 3)."""
    filled = []
    for i, c in enumerate(characters):
        if c.start is None or c.end is None:
            before, after = characters[i - 1].end, characters[i + 1].start
            assert before is not None and after is not None, "a space stands between characters that are timed"
            filled.append((c.text, before, after, c.score))
        else:
            filled.append((c.text, c.start, c.end, c.score))
    return filled


def _target_rows(characters: list[tuple[str, int, int, float]], pieces: Sequence[str]) -> list[tuple[int, int, float]]:
    """Start, end and score of each target token (rules 2 to 4)."""
    rows = []
    position = 0
    for piece in pieces:
        own: list[tuple[str, int, int, float]] = []
        for character in piece:
            if position == len(characters):
                break  # spaces at the end
            if character.isspace() and (position == 0 or characters[position][0] != " "):
                continue  # a run of spaces is one
            own.append(characters[position])
            position += 1
        spans = [c for c in own if c[0] != " "] or own
        if not spans:
            borrowed = characters[min(position, len(characters) - 1)]
            rows.append((borrowed[1], borrowed[2], 0.0))
        else:
            rows.append((spans[0][1], spans[-1][2], sum(c[3] for c in own)))
    return rows
