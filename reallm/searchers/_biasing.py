"""Contextual biasing: phrases that a stream may well bring, and what each token of them is worth. N states, V tokens and BLANK.

A text has a value, which a search adds to its log-probability (shallow fusion)::

    value(text) = bonus / tokens a word · (tokens of complete phrases + tokens at the end that may become a phrase)
    gain(token) = value(text + token) - value(text)

so that the tokens of a phrase count as they come, and are taken back where it is not completed, whatever phrases begin, end and
overlap in it. A phrase is whole words: it begins with a word, and is complete where a word has ended. The bonus is that of a word, the
mean one of the list, so that it means the same whatever the tokens are.

In greedy search, where nothing that was said can be taken back, the same gains weigh tokens against each other, and against nothing
else: whether a token is said at all is up to the model, as in NeMo's phrase boosting (arXiv 2508.07014).

An automaton over tokens knows the gains: that of Aho and Corasick (1975) over the trie of the phrases' tokens, as in icefall's
ContextGraph, whose states also tell which tokens of the match so far belong to complete phrases. It is two dense tensors,
``next`` and ``gain``, and a step of all streams is a gather in each; those of all lists lie one below the other in a PhraseTable.
"""

import functools
import math
import threading
import unicodedata
from collections.abc import Sequence
from typing import Any, NamedTuple, cast
from weakref import WeakValueDictionary

import numpy as np
import torch
from torch import Tensor

from reallm.errors import InputError
from reallm.protocols import TextState, Tokenizer

LARGEST = 1 << 30  # bytes of a list's automaton
UNSPACED = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR")  # scripts that put no spaces between words
NO_PHRASES = 0  # a state of every table: nothing is worth anything

_lock = threading.Lock()  # of all tables: they belong to searchers, which are copied and sent to other processes


class Automaton(NamedTuple):
    """One list of phrases."""

    next: np.ndarray[Any, np.dtype[np.int32]]  # (N, V + 1), the state after each token
    gain: np.ndarray[Any, np.dtype[np.float32]]  # (N, V + 1), 0 for BLANK
    pending: np.ndarray[Any, np.dtype[np.float64]]  # (N,), what the end of the text takes back
    start: int


class Table(NamedTuple):
    """The automata of many lists."""

    next: Tensor  # (N, V + 1) int32
    gain: Tensor  # (N, V + 1) float32
    pending: Tensor  # (N,) float64

    def advance(self, state: Tensor, said: Tensor, token_ids: Tensor) -> Tensor:
        """``state`` (…) after ``token_ids`` (…), where they were ``said`` (…) bool."""
        return torch.where(said, self.next[state, token_ids].long(), state)


def compile_phrases(phrases: Sequence[str], bonus: float, tokenizer: Tokenizer) -> Automaton:
    """The automaton of a list of phrases, each word of which is worth ``bonus`` (a log-probability).

    Raises InputError for a phrase that is empty or that the tokenizer cannot spell, and for more than fit into LARGEST.
    """
    trie = _Trie()
    lead: list[int] = []
    words = tokens_inside = 0
    for phrase in phrases:
        inside, alone, others = _spellings(phrase, tokenizer)
        if inside[len(inside) - len(alone) :] == alone:
            lead = inside[: len(inside) - len(alone)]
        else:
            others.append(alone)
        words, tokens_inside = words + len(phrase.split()), tokens_inside + len(inside)
        for tokens in (inside, *others):
            trie.add(tokens)
    trie.link()
    found = _automaton(trie, lead, _ends_word(cast(Any, tokenizer)), len(phrases))
    each = bonus * words / max(tokens_inside, 1)
    return found._replace(gain=found.gain * np.float32(each), pending=found.pending * each)


def _spellings(phrase: str, tokenizer: Tokenizer) -> tuple[list[int], list[int], list[list[int]]]:
    """The tokens of a phrase inside of a text, at its beginning, and elsewhere."""
    text = " ".join(phrase.split())
    if not text:
        raise InputError(f"phrase {phrase!r} is empty: leave it out")
    try:
        alone = tokenizer.encode(text)
    except InputError as error:
        raise InputError(f"phrase {phrase!r}: {error}; or leave the phrase out, or spell it otherwise") from error
    inside = _behind(text.split()[0], " " + text, tokenizer) or alone
    glued = _behind(text[0], text, tokenizer) if _is_unspaced(text[0]) else None
    return inside, alone, [glued] if glued else []


def _behind(first: str, rest: str, tokenizer: Tokenizer) -> list[int] | None:
    """The tokens of ``rest`` behind ``first``, if those of ``first`` stay what they are."""
    head, whole = tokenizer.encode(first), tokenizer.encode(first + rest)
    return whole[len(head) :] if whole[: len(head)] == head else None


def _is_unspaced(character: str) -> bool:
    return unicodedata.name(character, "").startswith(UNSPACED)


@functools.lru_cache(maxsize=4)
def _ends_word(tokenizer: Any) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """(V,): where each token follows, the word before it has ended."""
    begun = TextState(started=True)
    texts = (tokenizer.decode_step(token_id, begun)[0] for token_id in range(tokenizer.vocab_size))
    return np.array([bool(text) and (not text[0].isalnum() or _is_unspaced(text[0])) for text in texts])


class _Trie:
    """The tokens of phrases, with the links of Aho and Corasick. Node 0 is the root."""

    def __init__(self) -> None:
        self.children: list[dict[int, int]] = [{}]
        self.depth = [0]
        self.ends: list[list[int]] = [[]]  # the lengths of the phrases that end here
        self.fail = [0]

    def add(self, tokens: Sequence[int]) -> None:
        """One more phrase."""
        node = 0
        for token in tokens:
            if token not in self.children[node]:
                self.children[node][token] = len(self.children)
                self.children.append({})
                self.depth.append(self.depth[node] + 1)
                self.ends.append([])
                self.fail.append(0)
            node = self.children[node][token]
        if not self.ends[node]:
            self.ends[node].append(self.depth[node])

    def link(self) -> None:
        """Link each node to the longest other one that ends like it."""
        queue = list(self.children[0].values())
        for node in queue:
            self.ends[node] = self.ends[node] + self.ends[self.fail[node]]
            for token, child in self.children[node].items():
                self.fail[child] = self.after(self.fail[node], token)
                queue.append(child)

    def after(self, node: int, token: int) -> int:
        """The longest node that a text ends with which ended with ``node`` before this token."""
        while node and token not in self.children[node]:
            node = self.fail[node]
        return self.children[node].get(token, 0)


class _Match(NamedTuple):
    """What a text ends with, and which tokens of it belong to complete phrases: bit n for the last token but n."""

    node: int
    covered: int


def _automaton(trie: _Trie, lead: Sequence[int], ends_word: np.ndarray[Any, Any], phrases: int) -> Automaton:
    """The automaton where each token is worth 1."""
    size = len(ends_word)

    def complete(match: _Match) -> int:
        """Which tokens are covered where a word ends here."""
        return functools.reduce(lambda covered, length: covered | ((1 << length) - 1), trie.ends[match.node], match.covered)

    def step(match: _Match, token: int) -> tuple[_Match, int]:
        covered = complete(match) if ends_word[token] else match.covered
        node, depth = trie.after(match.node, token), trie.depth[match.node]
        kept = max(trie.depth[node] - 1, 0)
        lost = depth - kept - (covered >> kept).bit_count()
        return _Match(node, (covered & ((1 << kept) - 1)) << 1), (node > 0) - lost

    number: dict[_Match, int] = {_Match(0, 0): 0}
    matches = list(number)

    def state_of(match: _Match) -> int:
        if match not in number:
            number[match] = len(matches)
            matches.append(match)
            if len(matches) * (size + 1) * 8 > LARGEST:
                raise InputError(f"{phrases} phrases take more than {LARGEST >> 20} MB in a vocabulary of {size} tokens: give fewer")
        return number[match]

    begins = np.array(sorted(trie.children[0]), dtype=np.int64)
    first = np.zeros(size + 1, dtype=np.int32)
    first[begins] = [state_of(_Match(trie.children[0][int(token)], 0)) for token in begins]
    node = functools.reduce(trie.after, lead, 0)
    start = state_of(_Match(node, (1 << trie.depth[node]) - 1))  # nothing was said yet, so that nothing is to be taken back
    following, gains, pending = [], [], []
    for match in matches:  # grows meanwhile
        depth, covered = trie.depth[match.node], complete(match)
        pending.append(depth - covered.bit_count())
        row, gain = first.copy(), np.zeros(size + 1, dtype=np.float32)
        gain[:-1] = np.where(ends_word, -pending[-1], match.covered.bit_count() - depth)
        gain[begins] += 1
        node, seen = match.node, set[int]()
        while node:
            for token in trie.children[node].keys() - seen:
                after, gain[token] = step(match, token)
                row[token] = state_of(after)
            seen |= trie.children[node].keys()
            node = trie.fail[node]
        following.append(row)
        gains.append(gain)
    return Automaton(np.stack(following), np.stack(gains), np.array(pending, dtype=np.float64), start)


class PhraseList:
    """A list in a table, for as long as somebody holds it."""

    def __init__(self, key: tuple[Any, ...], automaton: Automaton, begin: int) -> None:
        self.key, self.automaton, self.begin = key, automaton, begin

    @property
    def end(self) -> int:
        """The row behind it."""
        return self.begin + len(self.automaton.pending)

    @property
    def start(self) -> int:
        """The state of new streams."""
        return self.begin + self.automaton.start


class PhraseTable:
    """The phrases of all streams of a searcher: equal lists are there once, and leave with the last stream that has them.

    Streams that choose no list have the ``default``, which is none.

    A state takes 8 · (V + 1) bytes, and a list has a state or so for each of its tokens. The table is made larger, by the double at least,
    when lists find no room between others, and never smaller: it has room for the most that were there at a time. A list may take LARGEST;
    how many different ones there are at a time is bounded by the number of streams alone.
    """

    def __init__(self) -> None:
        self._lists: WeakValueDictionary[tuple[Any, ...], PhraseList] = WeakValueDictionary()
        self._table: Table | None = None
        self.default: PhraseList | None = None

    def __getstate__(self) -> dict[str, Any]:
        default = self.default
        return {"default": None if default is None else (default.key, default.automaton)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()  # type: ignore[misc]
        if state["default"] is not None:
            self.default = self._place(*state["default"])

    @property
    def start(self) -> int:
        """The state of streams that choose no list."""
        return NO_PHRASES if self.default is None else self.default.start

    def add(self, phrases: Sequence[str], bonus: float, tokenizer: Tokenizer) -> PhraseList:
        """A list, compiled if it is new. Raises InputError as ``compile_phrases``, and for a ``bonus`` that is not above 0."""
        if isinstance(phrases, str):
            raise InputError(f"phrases {phrases!r}: give a list of them, [{phrases!r}]")
        if not 0 < bonus < math.inf:
            raise InputError(f"phrase_bonus {bonus:g}: log-probability that a word of a phrase is given, above 0, such as 3")
        key = (tokenizer.fingerprint, bonus, *phrases)
        return self._lists.get(key) or self._place(key, compile_phrases(phrases, bonus, tokenizer))

    @torch.inference_mode()
    def _place(self, key: tuple[Any, ...], automaton: Automaton) -> PhraseList:
        with _lock:
            known = self._lists.get(key)
            if known is not None:
                return known
            size, begin = len(automaton.pending), NO_PHRASES + 1
            for other in sorted(self._lists.values(), key=lambda one: one.begin):
                if other.begin - begin >= size:
                    break
                begin = max(begin, other.end)
            placed = self._lists[key] = PhraseList(key, automaton, begin)
            table = self._table = self._with_room(placed.end, automaton.next.shape[1])
            rows = slice(begin, placed.end)
            table.next[rows] = torch.from_numpy(automaton.next + np.int32(begin))
            table.gain[rows] = torch.from_numpy(automaton.gain)
            table.pending[rows] = torch.from_numpy(automaton.pending)
            return placed

    def _with_room(self, rows: int, width: int) -> Table:
        old = self._table
        if old is not None and rows <= len(old.pending):
            return old
        rows = max(rows, 0 if old is None else 2 * len(old.pending))
        device = "cpu" if old is None else old.gain.device
        wide, narrow = (rows, width), (rows,)
        shapes = ((wide, torch.int32), (wide, torch.float32), (narrow, torch.float64))
        table = Table(*(torch.zeros(shape, dtype=dtype, device=device) for shape, dtype in shapes))
        for new, kept in zip(table, old or (), strict=False):
            new[: len(kept)] = kept
        return table

    @torch.inference_mode()
    def on(self, device: torch.device) -> Table | None:
        """The table on a device; None where there is no list. A step goes on with what it was given."""
        if not self._lists:
            return None
        table = self._table
        if table is not None and table.gain.device == device:
            return table  # without the lock, which is held while another one is made: all streams would wait for one that brings phrases
        with _lock:
            if self._table is not None and self._table.gain.device != device:
                self._table = Table(*(tensor.to(device) for tensor in self._table))
            return self._table
