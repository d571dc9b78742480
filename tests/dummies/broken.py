"""Components with one mistake each, made of sound ones: what the contract's checks must catch."""

import dataclasses
import itertools
from dataclasses import dataclass

import torch
from torch import nn

from reallm.adapters.conv import ConvolutionalAdapter
from reallm.aligners.ctc import CTCAligner
from reallm.decoders.llama import LlamaDecoder
from reallm.encoders.conformer import ConformerEncoder
from reallm.encoders.lstm import LSTMEncoder
from reallm.frontends.log_mel import LogMelFrontend
from reallm.interleavers.blank import BlankFedInterleaver, BlankInterleaver
from reallm.interleavers.chunk_eos import ChunkEosInterleaver
from reallm.layers.subsampling import WindowState
from reallm.predictors.lstm import LSTMPredictor
from reallm.predictors.stateless import StatelessPredictor
from reallm.protocols import TextState
from reallm.searchers.greedy import GreedySearcher
from reallm.streaming.geometry import Geometry
from reallm.streaming.state import StreamingState
from reallm.systems.aed import AED
from reallm.systems.ctc import CTC
from reallm.tokenizers.character import CharacterTokenizer


class ForgetfulAdapter(ConvolutionalAdapter):
    """Begins every chunk as if it were the first."""

    def step(self, enc, lens, final, state):
        return super().step(enc, lens, final, self.init_state(enc.size(0), dtype=enc.dtype))


class PaddingReader(ConvolutionalAdapter):
    """Takes padding for audio."""

    def forward(self, enc, lens):
        full = torch.full_like(lens, enc.size(1))
        return super().forward(enc, full)[0], -(-lens // self.stride)


class RowMixer(ConvolutionalAdapter):
    """Normalizes over the batch."""

    def forward(self, enc, lens):
        return super().forward(enc - enc.mean(0, keepdim=True), lens)


class ShortCounter(ConvolutionalAdapter):
    """Rounds lengths down."""

    def forward(self, enc, lens):
        return super().forward(enc, lens)[0], lens // self.stride


class GrowingAdapter(ConvolutionalAdapter):
    """Keeps everything it has heard."""

    def step(self, enc, lens, final, state):
        out, out_lens, _ = super().step(enc, lens, final, WindowState(state.context[:, -self.window.context :]))
        return out, out_lens, WindowState(torch.cat([state.context, enc], dim=1))


class RestlessAdapter(ConvolutionalAdapter):
    """Forgets its context when a row rests."""

    def step(self, enc, lens, final, state):
        out, out_lens, state = super().step(enc, lens, final, state)
        return out, out_lens, WindowState(state.context * (lens > 0).view(-1, 1, 1))


class IdleAdapter(ConvolutionalAdapter):
    """Has a layer that nothing uses."""

    @classmethod
    def tiny(cls):
        adapter = super().tiny()
        adapter.idle = nn.Linear(2, 2)
        return adapter


@dataclass
class SharedState(StreamingState):
    """A window, and a counter that all rows share."""

    window: WindowState
    chunks: torch.Tensor


class SharedClockAdapter(ConvolutionalAdapter):
    """Takes the age of row 0 for that of all rows."""

    def init_state(self, batch, device="cpu", dtype=torch.float32):
        return SharedState(super().init_state(batch, device, dtype), torch.zeros(batch, device=device))

    def step(self, enc, lens, final, state):
        out, out_lens, window = super().step(enc, lens, final, state.window)
        return out + state.chunks[0], out_lens, SharedState(window, state.chunks)


class HeadstrongAdapter(SharedClockAdapter):
    """Remembers the sum of all rows: resetting one changes the others."""

    def step(self, enc, lens, final, state):
        out, out_lens, window = ConvolutionalAdapter.step(self, enc, lens, final, state.window)
        return out + 1e-3 * state.window.context.sum(), out_lens, SharedState(window, state.chunks)


class FarSightedEncoder(ConformerEncoder):
    """Sees the whole utterance whatever the chunk."""

    def forward(self, feats, lens, chunk=None):
        return super().forward(feats, lens, None)


class UnclearedEncoder(LSTMEncoder):
    """Leaves what it computed in padding."""

    def forward(self, feats, lens, chunk=None):
        out, out_lens = super().forward(feats, lens)
        return torch.where(out == 0, 1.0, out), out_lens


class CentredFrontend(LogMelFrontend):
    """Frames that are centred, as in most toolkits, and so wait for audio."""

    def forward(self, wav, lens):
        ahead = self.window_samples // 2
        shifted = torch.cat([wav[:, ahead:], torch.zeros_like(wav[:, :ahead])], dim=1)
        return super().forward(shifted, lens)


class BackwardDecoder(LlamaDecoder):
    """Attends to what follows."""

    def forward(self, inputs, lens):
        return super().forward(inputs + 0.1 * inputs.flip(1), lens)


class RestlessDecoder(LlamaDecoder):
    """Moves on in rows that are not active."""

    def step(self, inputs, active, state):
        return super().step(inputs, torch.ones_like(active), state)


class OtherWindowDecoder(LlamaDecoder):
    """Streams with a window that it was not trained with."""

    def forward(self, inputs, lens):
        self.window += 1
        try:
            return super().forward(inputs, lens)
        finally:
            self.window -= 1


class RestlessPredictor(LSTMPredictor):
    """Goes on where it should rest."""

    def step(self, inputs, active, state):
        return super().step(inputs, torch.ones_like(active), state)


class WidePredictor(StatelessPredictor):
    """Is wider than it says."""

    def __init__(self, vocab_size: int, dim: int = 256, context: int = 2):
        super().__init__(vocab_size, dim, context)
        self.output_dim -= 1


class TwoPolicies(BlankFedInterleaver):
    """Feeds BLANK at run time, but not in training."""

    def build(self, *args):
        return BlankInterleaver(self.blank_id).build(*args)


class Clamper(BlankInterleaver):
    """Moves late tokens to the last embedding."""

    def build(self, alignments, speech_lens, delay, period_samples):
        limits = [(int(n) - int(d)) * period_samples for n, d in zip(speech_lens, delay, strict=True)]
        clamped = [dataclasses.replace(a, end_samples=a.end_samples.clamp(max=m)) for a, m in zip(alignments, limits, strict=True)]
        return super().build(clamped, speech_lens, delay, period_samples)


class EarlyInterleaver(BlankInterleaver):
    """Rounds ends down: a token is answered before its end was heard."""

    def build(self, alignments, speech_lens, delay, period_samples):
        earlier = [dataclasses.replace(a, end_samples=(a.end_samples - period_samples + 1).clamp(min=0)) for a in alignments]
        return super().build(earlier, speech_lens, delay, period_samples)


class LastEmbeddingDropper(BlankInterleaver):
    """Leaves out the last speech embedding."""

    def build(self, alignments, speech_lens, delay, period_samples):
        return super().build(alignments, speech_lens - 1, delay, period_samples)


class TalkativeChunks(ChunkEosInterleaver):
    """Asks for an answer to every speech embedding."""

    build = BlankInterleaver.build


class Prophet(BlankInterleaver):
    """Takes tokens as due after their answers."""

    def due(self, frame, durations):
        return frame + 1


class UncountedCuts(GreedySearcher):
    """Does not say that a response was cut."""

    def step(self, model, embeddings, lens, final, state):
        emission, state = super().step(model, embeddings, lens, final, state)
        return dataclasses.replace(emission, cap_hits=torch.zeros_like(emission.cap_hits)), state


class FirstOfAStep(GreedySearcher):
    """Brings out one token a step at most."""

    def step(self, model, embeddings, lens, final, state):
        emission, state = super().step(model, embeddings, lens, final, state)
        return dataclasses.replace(emission, lens=emission.lens.clamp(max=1)), state


class Bounded(GreedySearcher):
    """No mistake: one position a step."""

    @classmethod
    def tiny(cls):
        return cls(max_symbols=3, positions=1)


class SecretlyPending(Bounded):
    """Does not say that its answers go on."""

    def step(self, model, embeddings, lens, final, state):
        emission, state = super().step(model, embeddings, lens, final, state)
        return dataclasses.replace(emission, pending=None, full=None), state


class Endless(Bounded):
    """Never done, as it says."""

    def step(self, model, embeddings, lens, final, state):
        emission, state = super().step(model, embeddings, lens, final, state)
        return dataclasses.replace(emission, pending=emission.pending | True), state


class FullWithoutReason(Bounded):
    """Takes nothing in, and owes nothing."""

    def step(self, model, embeddings, lens, final, state):
        emission, state = super().step(model, embeddings, lens, final, state)
        return dataclasses.replace(emission, full=~emission.pending), state


class LeadingSpaces(CharacterTokenizer):
    """Shows the space before the first word."""

    def decode_step(self, token_id, state):
        return super().decode_step(token_id, TextState(started=True))


class Swallower(CharacterTokenizer):
    """Drops the characters that it does not know."""

    def encode(self, text):
        return super().encode("".join(c for c in text if c in self.symbols))


class NoFlush(CTC):
    """Recognizes whole utterances without the flush."""

    def recognize(self, wav, lens):
        periods, self.flush_periods = self.flush_periods, 0
        try:
            return super().recognize(wav, lens)
        finally:
            self.flush_periods = periods


class PaddingLoss(CTC):
    """Learns from padding."""

    def loss(self, batch):
        return super().loss(dataclasses.replace(batch, wav_lens=torch.full_like(batch.wav_lens, batch.wav.size(1))))


class UncountedLoss(CTC):
    """Does not say how many targets its loss is a mean over."""

    def loss(self, batch):
        return super().loss(batch)[0], {}


class MeanOfMeans(AED):
    """A part of its loss is a mean over something else than its targets."""

    def loss(self, batch):
        loss, stats = super().loss(batch)
        tokens = sum(len(self.tokenizer.encode(text)) for text in batch.texts)
        return loss + self.ctc_weight * stats["loss_ctc"] * (stats["targets"] / tokens - 1), stats


class AlteredAdapter(ConvolutionalAdapter):
    """Its weights are not those that its arguments make."""

    @classmethod
    def tiny(cls):
        adapter = ConvolutionalAdapter.tiny()
        adapter.head = nn.Sequential(adapter.head, nn.Linear(8, 8))
        return adapter


class UnsteadyAdapter(ConvolutionalAdapter):
    """Gives other weights each time they are asked for."""

    @classmethod
    def tiny(cls):
        adapter = ConvolutionalAdapter.tiny()
        sound = adapter.state_dict
        adapter.state_dict = lambda *args, **kwargs: {name: torch.rand_like(weight) for name, weight in sound(*args, **kwargs).items()}
        return adapter


class WrongGeometryAdapter(ConvolutionalAdapter):
    """Says another stride in its geometry."""

    def __init__(self, input_dim: int, output_dim: int, stride: int = 2, kernel: int = 4):
        super().__init__(input_dim, output_dim, stride, kernel)
        self.geometry = Geometry(stride + 1)


class WrongGeometryFrontend(LogMelFrontend):
    """Says another frame shift in its geometry."""

    @classmethod
    def tiny(cls):
        frontend = super().tiny()
        frontend.geometry = Geometry(frontend.frame_shift - 1)
        return frontend


class BoastfulEncoder(ConformerEncoder):
    """Declares more look-ahead than its chunk has."""

    @property
    def geometry(self):
        return Geometry(self.subsampling.stride, (self.chunk.size + self.chunk.right) * self.subsampling.stride)


class AmnesiacEncoder(LSTMEncoder):
    """Begins every chunk as if it were the first."""

    def forward(self, feats, lens, chunk=None):
        pieces = feats.split(self.chunk.size * self.geometry.stride, dim=1)
        return torch.cat([super(AmnesiacEncoder, self).forward(p, torch.full_like(lens, p.size(1)))[0] for p in pieces], dim=1), lens


class NarrowDecoder(LlamaDecoder):
    """Has no logit for BLANK."""

    def forward(self, inputs, lens):
        return super().forward(inputs, lens)[..., :-1]


class HeadstrongDecoder(LlamaDecoder):
    """Remembers the sum of all rows."""

    def step(self, inputs, active, state):
        return super().step(inputs + 1e-3 * state.keys[0].sum(), active, state)


class HeadstrongSearcher(GreedySearcher):
    """Counts frames from where all rows are together."""

    def step(self, model, embeddings, lens, final, state):
        offset = state.position.sum()
        emission, state = super().step(model, embeddings, lens, final, state)
        return dataclasses.replace(emission, frame=emission.frame + offset), state


class CrowdedSearcher(GreedySearcher):
    """Less sure of itself in company."""

    def step(self, model, embeddings, lens, final, state):
        emission, state = super().step(model, embeddings, lens, final, state)
        return dataclasses.replace(emission, log_probs=emission.log_probs - 0.1 * (embeddings.size(0) - 1)), state


class BackwardTokenizer(CharacterTokenizer):
    """Decodes from the end."""

    def decode(self, token_ids):
        return super().decode(token_ids)[::-1]


_numbers = itertools.count()


class ForgedFingerprint(CharacterTokenizer):
    """Another fingerprint each time."""

    def __init__(self, path):
        super().__init__(path)
        self.fingerprint = f"number {next(_numbers)}"


class PastTheEnd(CTCAligner):
    """Tokens that end after the audio."""

    def align(self, batch, token_ids, teacher):
        found = super().align(batch, token_ids, teacher)
        return [dataclasses.replace(a, end_samples=a.end_samples + 100_000) if hasattr(a, "end_samples") else a for a in found]


class Optimist(CTCAligner):
    """Aligns what has no tokens."""

    def align(self, batch, token_ids, teacher):
        found = super().align(batch, token_ids, teacher)
        good = next((a for a in found if hasattr(a, "end_samples")), None)
        return [a if hasattr(a, "end_samples") else good for a in found]


class CrowdedAligner(CTCAligner):
    """Later in company."""

    def align(self, batch, token_ids, teacher):
        found = super().align(batch, token_ids, teacher)
        late = len(batch.ids) - 1
        return [dataclasses.replace(a, start_samples=a.start_samples - late) if hasattr(a, "end_samples") else a for a in found]


class PaddingHearer(CTC):
    """Recognizes the padding too."""

    def recognize(self, wav, lens):
        return super().recognize(wav, torch.full_like(lens, wav.size(1)))


class Borrower(CTC):
    """Its state lives in the memory of what it was given."""

    def step(self, wav, lens, final, state):
        emission, after = super().step(wav, lens, final, state)
        return emission, dataclasses.replace(after, frames=lens.copy_(after.frames))


class HeadstrongSystem(CTC):
    """Counts frames from where all rows are together."""

    def step(self, wav, lens, final, state):
        emission, after = super().step(wav, lens, final, state)
        return dataclasses.replace(emission, frame=emission.frame + state.frames.sum()), after


class EmptySpans(CTC):
    """Tokens that last no time."""

    def token_span(self, token_ids, frame):
        start, _ = super().token_span(token_ids, frame)
        return start, start
