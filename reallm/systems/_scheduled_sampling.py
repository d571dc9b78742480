"""Scheduled sampling (Bengio et al. 2015, arXiv 1506.03099): a model trained on its own answers goes on rightly after a wrong one."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from reallm.systems.reallm import ReaLLM
from reallm.types import Interleaved


def with_own_answers(model: ReaLLM, embeddings: Tensor, laid_out: Interleaved, probability: float) -> Interleaved:
    """The same sequences, each true answer that is fed replaced with ``probability`` by the model's own, the most probable one.

    All positions at once, as for Transformers (Mihaylova and Martins 2019, arXiv 1906.07651): a first pass of the decoder, without
    gradient, reads the true answers and gives its own; training reads the mixture in a second one. What is due, and at which position,
    stays that of the alignment, and with it what may be fed there:

    - a position that is there for the answer before it alone (interleavers ``blank``, ``chunk_eos``) takes the most probable token other
      than BLANK, also where BLANK is more probable. In use BLANK is never fed to it, for it ends the response, and there is no such
      position. A BLANK that has a position of its own (``blank_fed``) stays, for the same reason;
    - where BLANK is fed with the next speech embedding (``delayed_stream``), a position is there whatever was answered before it, and takes
      any answer, BLANK or not;
    - what is fed and is not the answer before it, such as the padding that a stream begins with, stays.

    The first pass has the dropout of training.

    Args:
        embeddings: (B, M, D) of the streams.
        laid_out: of the interleaver.
        probability: p of each position, from 0 to 1. What is drawn comes from torch's generator for the CPU, which training seeds anew for
            each batch.

    Returns what the second pass reads: other ``token_ids``, on the embeddings' device; all else is that of ``laid_out``.
    """
    token_ids, blank_id, device = laid_out.token_ids, model.interleaver.blank_id, embeddings.device
    takes_any = (laid_out.audio_index >= 0) & getattr(model.interleaver, "feeds_blank", False)
    fed_back = (token_ids >= 0) & (token_ids == _of_position_before(laid_out.targets))
    own = fed_back & (takes_any | (token_ids != blank_id)) & (torch.rand(token_ids.shape) < probability)
    with torch.no_grad():
        logits = model.decoder.forward(model.inputs(embeddings, laid_out), laid_out.lens.to(device))
        best, second = logits.topk(2, dim=-1).indices.unbind(-1)
    # PyTorch before 2.11 keeps the weights that autocast has cast here, and gives them no gradient in the second pass (its issue 65766).
    torch.clear_autocast_cache()
    token = torch.where(best == blank_id, second, best)
    answers = torch.where(takes_any.to(device), _of_position_before(best), _of_position_before(token))
    return replace(laid_out, token_ids=torch.where(own.to(device), answers, token_ids.to(device)))


def _of_position_before(values: Tensor) -> Tensor:
    """values (B, L) moved on by one position; -1 at the first."""
    return F.pad(values, (1, 0), value=-1)[:, :-1]
