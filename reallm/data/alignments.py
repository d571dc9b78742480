"""The only place where times on cuts are read and written; what comes out is relative to the cut.

lhotse 1.33 moves supervisions when a cut is appended, padded, truncated, mixed or merged, but leaves the items of their
alignments where they were. It keeps two things in order, though: a supervision's ``start`` is always relative to the
cut, and ``perturb_speed`` scales the items of every alignment. So an alignment is written as it is at that moment,
relative to the cut (what lhotse's tools expect), and beside it, as one more alignment named ``origin``, one item whose
start is the supervision's start at that moment. Later the items' time in the cut is::

    item.start + (supervision.start - origin.start)

and a change of speed scales all three. ``cut.merge_supervisions()`` drops the starts of all supervisions but the first, so
that nothing could tell the others' times: use :func:`merge_supervisions`, the readers refuse the other. Alignments without
an ``origin``, as lhotse's own corpora have them, are relative to the recording, as lhotse's documentation says.

Token ids lie in the supervision's custom field ``token_ids``, what made them in ``token_alignment``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lhotse import SupervisionSegment
from lhotse.cut import Cut, MixedCut, PaddingCut
from lhotse.supervision import AlignmentItem
from lhotse.utils import fastcopy

from reallm.errors import InputError
from reallm.types import Alignment, Word

TOKEN, WORD, ORIGIN = "token", "word", "origin"
TOLERANCE = 0.002  # seconds that rounding by lhotse may have moved an item out of its cut


def _supervisions(cut: Cut) -> list[tuple[SupervisionSegment, float]]:
    """Supervisions in order of time, each with the seconds from its recording's start to the cut's start."""
    if isinstance(cut, PaddingCut):
        return []
    if isinstance(cut, MixedCut):
        found = [
            (s.with_offset(track.offset), track.offset - track.cut.start)
            for track in cut.tracks
            if not isinstance(track.cut, PaddingCut)
            for s in track.cut.supervisions
        ]
    else:
        found = [(s, -cut.start) for s in cut.supervisions]
    return sorted(found, key=lambda pair: pair[0].start)


def _shift(cut: Cut, supervision: SupervisionSegment, from_recording: float) -> float:
    origin = (supervision.alignment or {}).get(ORIGIN)
    if len(origin or [0]) != 1 or supervision.recording_id.startswith("cat#"):
        raise InputError(
            f"cut '{cut.id}': lhotse's merge_supervisions lost the times of its alignments: use reallm.data.alignments.merge_supervisions"
        )
    return from_recording if origin is None else supervision.start - origin[0].start


def _items(cut: Cut, kind: str) -> Iterator[tuple[SupervisionSegment, int, AlignmentItem]]:
    """(supervision, item's number in it, item relative to the cut) for the items that lie wholly inside the cut."""
    for supervision, from_recording in _supervisions(cut):
        items = (supervision.alignment or {}).get(kind)
        if not items:
            continue
        shift = _shift(cut, supervision, from_recording)
        for number, item in enumerate(items):
            start, end = item.start + shift, item.start + item.duration + shift
            if start >= -TOLERANCE and end <= cut.duration + TOLERANCE:
                start, end = max(0.0, start), min(end, cut.duration)
                yield supervision, number, AlignmentItem(item.symbol, start, max(0.0, end - start), item.score)


def words(cut: Cut) -> list[Word]:
    """The words of the cut's ``word`` alignments that lie wholly inside it, cut-relative, in order; [] without any."""
    return [
        Word(item.symbol, item.start, item.start + item.duration, 1.0 if item.score is None else item.score)
        for _, _, item in _items(cut, WORD)
    ]


def token_alignment(cut: Cut, sample_rate: int) -> Alignment | None:
    """The tokens of the cut that lie wholly inside it, cut-relative; None where a supervision has no token alignment.

    Several supervisions (of appended cuts) are joined in order. Times are round(seconds · sample_rate).
    """
    supervisions = [s for s, _ in _supervisions(cut)]
    if not supervisions or any(TOKEN not in (s.alignment or {}) for s in supervisions):
        return None
    found = [((s.custom or {})["token_ids"][number], item) for s, number, item in _items(cut, TOKEN)]
    start = [round(item.start * sample_rate) for _, item in found]
    end = [round((item.start + item.duration) * sample_rate) for _, item in found]
    return Alignment(
        token_ids=torch.tensor([token for token, _ in found], dtype=torch.int64),
        start_samples=torch.tensor(start, dtype=torch.int64),
        end_samples=torch.tensor(end, dtype=torch.int64),
        scores=torch.tensor([0.0 if item.score is None else item.score for _, item in found], dtype=torch.float64),
        sample_rate=sample_rate,
        score=float(sum((s.custom or {})["token_alignment"].get("score", 0.0) for s in supervisions)),
    )


def token_meta(cut: Cut) -> dict[str, Any] | None:
    """What ``with_token_alignment`` was told (``tokenizer``, ``backend``, ``version``, …); None without an alignment.

    Raises InputError where the supervisions of one cut were aligned with different tokenizers.
    """
    found = [(s.custom or {}).get("token_alignment") for s, _ in _supervisions(cut)]
    metas = [m for m in found if m is not None]
    if len({m.get("tokenizer") for m in metas}) > 1:
        raise InputError(f"cut '{cut.id}' was aligned with several tokenizers: run `reallm align` on all of it")
    return metas[0] if metas and len(metas) == len(found) else None


def _with_supervision(cut: Cut, change: Callable[[SupervisionSegment, float], SupervisionSegment]) -> Cut:
    """A copy of the cut whose only supervision is changed; ``change`` also gets the offset of its track."""
    count = len(_supervisions(cut))
    if count != 1:
        raise InputError(f"cut '{cut.id}' has {count} supervisions where one is needed: split it, or merge_supervisions it")
    if not isinstance(cut, MixedCut):
        return fastcopy(cut, supervisions=[change(cut.supervisions[0], 0.0)])
    tracks = [
        track
        if isinstance(track.cut, PaddingCut) or not track.cut.supervisions
        else fastcopy(track, cut=fastcopy(track.cut, supervisions=[change(track.cut.supervisions[0], track.offset)]))
        for track in cut.tracks
    ]
    return fastcopy(cut, tracks=tracks)


def _written(supervision: SupervisionSegment, offset: float, alignments: Mapping[str, list[AlignmentItem]]) -> SupervisionSegment:
    """The supervision with alignments that are relative to its cut now; those it had are brought to the same origin."""
    old = dict(supervision.alignment or {})
    origin = AlignmentItem("", round(supervision.start + offset, ndigits=8), supervision.duration)
    if ORIGIN in old:
        shift = origin.start - old.pop(ORIGIN)[0].start
        old = {k: [AlignmentItem(i.symbol, round(i.start + shift, 9), i.duration, i.score) for i in v] for k, v in old.items()}
    return fastcopy(supervision, alignment={**old, **alignments, ORIGIN: [origin]})


def with_words(cut: Cut, words: Sequence[Word]) -> Cut:
    """A copy of the cut with ``word`` alignments, given cut-relative. Raises InputError unless it has one supervision."""
    items = [AlignmentItem(w.word, round(w.start, 9), round(w.end - w.start, 9)) for w in words]
    return _with_supervision(cut, lambda s, offset: _written(s, offset, {WORD: items}))


def with_token_alignment(cut: Cut, alignment: Alignment, pieces: Sequence[str], meta: Mapping[str, Any]) -> Cut:
    """A copy of the cut with a ``token`` alignment.

    Args:
        cut: it must have exactly one supervision, else InputError.
        alignment: U tokens, cut-relative.
        pieces: U texts of the tokens.
        meta: at least ``tokenizer`` (its fingerprint), ``backend`` and ``version``.
    """
    rate = alignment.sample_rate
    rows = zip(pieces, alignment.start_samples.tolist(), alignment.end_samples.tolist(), alignment.scores.tolist(), strict=True)
    items = [AlignmentItem(piece, start / rate, (end - start) / rate, score) for piece, start, end, score in rows]

    def change(supervision: SupervisionSegment, offset: float) -> SupervisionSegment:
        custom = {
            **(supervision.custom or {}),
            "token_ids": alignment.token_ids.tolist(),
            "token_alignment": {**meta, "score": alignment.score},
        }
        return fastcopy(_written(supervision, offset, {TOKEN: items}), custom=custom)

    return _with_supervision(cut, change)


def merge_supervisions(cut: Cut) -> Cut:
    """A copy of the cut whose supervisions are one, from the first's start to the last's end, alignments included.

    Token alignments stay where every supervision has one. In a mix the first track carries the new supervision, as in
    lhotse: truncating that track away takes it along. Raises InputError where the tokenizers differ.
    """
    supervisions = [s for s, _ in _supervisions(cut)]
    if len(supervisions) < 2:
        return cut
    alignments = {kind: [item for _, _, item in _items(cut, kind)] for kind in (WORD, TOKEN)}
    custom: dict[str, Any] = {}
    meta = token_meta(cut)
    if meta is None:
        alignments[TOKEN] = []
    else:
        token_ids = [(s.custom or {})["token_ids"][number] for s, number, _ in _items(cut, TOKEN)]
        score = sum(s.custom["token_alignment"]["score"] for s in supervisions if s.custom)
        custom = {"token_ids": token_ids, "token_alignment": {**meta, "score": score}}
    carrier = next(i for i, t in enumerate(cut.tracks) if not isinstance(t.cut, PaddingCut)) if isinstance(cut, MixedCut) else 0
    offset = cut.tracks[carrier].offset if isinstance(cut, MixedCut) else 0.0
    first = supervisions[0]
    start, end = first.start, max(s.end for s in supervisions)
    speakers = {s.speaker for s in supervisions}
    merged = fastcopy(
        first,
        start=round(start - offset, 9),
        duration=round(end - start, 9),
        text=" ".join(s.text for s in supervisions if s.text),
        speaker=first.speaker if len(speakers) == 1 else None,
        custom=custom or None,
        alignment={**{k: v for k, v in alignments.items() if v}, ORIGIN: [AlignmentItem("", start, end - start)]},
    )
    if not isinstance(cut, MixedCut):
        return fastcopy(cut, supervisions=[merged])
    tracks = [
        track
        if isinstance(track.cut, PaddingCut)
        else fastcopy(track, cut=fastcopy(track.cut, supervisions=[merged] if i == carrier else []))
        for i, track in enumerate(cut.tracks)
    ]
    return fastcopy(cut, tracks=tracks)
