"""Self-alignment: forced alignment with the answers of a trained Speech ReaLLM. Legend of letters: reallm/types.py."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from reallm.aligners.forced_search import ForcedPaths, forced_search
from reallm.aligners.path import check_tokens, pad_tokens
from reallm.aligners.rnnt import RNNTPath
from reallm.aligners.teacher import TeacherAligner
from reallm.errors import at_least
from reallm.protocols import AlignmentFailure, Interleaver, ResponseModel
from reallm.registry import register
from reallm.streaming.state import tensors
from reallm.types import Alignment, Batch, Interleaved

MEMORY = 2**28  # bytes of the decoder states that are searched at once, as far as they are not those of one utterance


@register("aligner", "reallm")
class ReaLLMAligner(TeacherAligner):
    """Token times from a Speech ReaLLM: those at which it would say the transcript most readily, less its delay.

    Its answers depend on all that was said before, and when, so that there is no lattice to find the best path in. The search of
    reallm/aligners/forced_search.py keeps the ``beam`` best histories for each speech embedding and each number of tokens said. Of those
    that have said all tokens and have answered the last speech embedding, flush included, the most probable one is taken, BLANKs
    included.

    A token begins and ends with the token period in which it is due with the system's delay (the one that it was trained with, or its
    default among several): to train on these times with this delay is to ask for exactly this path. So only such paths are searched that
    training can ask for: no token answers a speech embedding before the delay is over, nor one that is later than the audio's last by more
    than the delay.

    Args:
        beam: K.

    The teacher has ``stream_embeddings(batch) -> (B, M, D), lens (B,)``, a decoder, an interleaver, and a delay in token periods.

    Raises InputError for a beam below 1.
    """

    scores, needs = "stream_embeddings", ("answers to speech embeddings", "speech_reallm")

    def __init__(self, beam: int = 4) -> None:
        at_least(1, beam=beam)
        self.beam = beam

    @classmethod
    def tiny(cls) -> "ReaLLMAligner":
        """Two histories."""
        return cls(beam=2)

    def backend_version(self) -> tuple[str, str]:
        """What is stored beside the alignments: the search, and its beam."""
        return "forced beam", str(self.beam)

    def paths(self, batch: Batch, token_ids: Sequence[Tensor], teacher: Any) -> list[RNNTPath | AlignmentFailure]:
        """A path an utterance; fails where there are no tokens, no audio, or no path."""
        check_tokens(token_ids, int(teacher.tokenizer.vocab_size))
        tokens, token_lens = pad_tokens(token_ids)
        speech, lens = teacher.stream_embeddings(batch)
        found: list[RNNTPath | AlignmentFailure] = [
            AlignmentFailure("empty transcript" if not count else "too short: no audio") for count in token_lens.tolist()
        ]
        audible = ((token_lens > 0) & (batch.wav_lens.cpu() > 0)).nonzero()[:, 0]
        periods = -(-batch.wav_lens.cpu() // teacher.period_samples)
        model = ResponseModel(teacher.decoder, teacher.interleaver)
        decoder_state = model.decoder.init_state(1, speech.device, speech.dtype)
        histories = MEMORY // sum(tensor.nbytes for tensor in tensors(decoder_state))
        for rows in _groups(audible, token_lens, histories // self.beam):
            at, most = rows.to(speech.device), int(token_lens[rows].max())
            heard, spoken = lens.cpu()[rows], token_lens[rows]
            first = _answered(teacher.interleaver, torch.full_like(heard, teacher.delay), heard)
            last = _answered(teacher.interleaver, periods[rows] - 1 + teacher.delay, heard)
            paths = forced_search(model, speech[at, : int(heard.max())], heard, tokens[rows, :most], spoken, first, last, self.beam)
            for k, row in enumerate(rows.tolist()):
                found[row] = _path(paths, k, int(spoken[k]), int(heard[k]), teacher.delay)
        return found


def _groups(rows: Tensor, token_lens: Tensor, nodes: int) -> Iterator[Tensor]:
    """Utterances of about as many tokens, which have no more than so many nodes at a time, or one."""
    rows = rows[token_lens[rows].argsort(descending=True, stable=True)]
    while rows.numel():
        size = max(1, nodes // (int(token_lens[rows[0]]) + 1))
        yield rows[:size]
        rows = rows[size:]


def _answered(interleaver: Interleaver, due: Tensor, lens: Tensor) -> Tensor:
    """(B,) the speech embedding that a token answers, alone in its utterance, which is due at embedding ``due`` (B,) of ``lens`` (B,)."""
    one = torch.zeros(1, dtype=torch.int64)
    alignments = [Alignment(one, at.view(1), at.view(1) + 1, one.double(), 1) for at in due]
    return torch.cat(answered_embeddings(interleaver.build(alignments, lens, torch.zeros_like(lens), 1), interleaver.blank_id))


def answered_embeddings(laid_out: Interleaved, blank_id: int) -> list[Tensor]:
    """Of each training sequence, the speech embeddings that its tokens answer (U_b,)."""
    said = (laid_out.targets >= 0) & (laid_out.targets != blank_id)
    frames = laid_out.audio_index.cummax(1).values
    return [frame[where] for frame, where in zip(frames, said, strict=True)]


def _path(paths: ForcedPaths, row: int, tokens: int, embeddings: int, delay: int) -> RNNTPath | AlignmentFailure:
    if bool(paths.broken[row]):
        return AlignmentFailure("the teacher's scores hold NaN")
    if bool(paths.exhausted[row]):
        return AlignmentFailure(f"too long: {embeddings} speech embeddings and {tokens} tokens are more than the decoder has room for")
    score = float(paths.score[row])
    if score == -torch.inf:
        return AlignmentFailure(f"no path: {embeddings} speech embeddings cannot be answered with its {tokens} tokens")
    return RNNTPath(paths.frames[row, :tokens].cpu() - delay, paths.log_probs[row, :tokens].cpu(), score)
