"""SpeechBrain's streaming Conformer-Transducer, with random weights: its recipe for LibriSpeech, built without a download.

The sizes are those of recipes/LibriSpeech/ASR/transducer/hparams/conformer_transducer.yaml of SpeechBrain 1.0 (79 million parameters).
"""

from dataclasses import dataclass
from typing import Any

import torch
from _models import VOCABULARY, speaking
from speechbrain.decoders.transducer import TransducerBeamSearcher, TransducerGreedySearcherStreamingContext
from speechbrain.inference.ASR import StreamingASR
from speechbrain.lobes.features import Fbank, StreamingFeatureWrapper
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.lobes.models.transformer.TransformerASR import EncoderWrapper, TransformerASR
from speechbrain.nnet.containers import LengthsCapableSequential
from speechbrain.nnet.embedding import Embedding
from speechbrain.nnet.linear import Linear
from speechbrain.nnet.RNN import LSTM
from speechbrain.nnet.transducer.transducer_joint import Transducer_joint
from speechbrain.processing.features import InputNormalization
from speechbrain.utils.filter_analysis import stack_filter_properties
from torch import Tensor, nn

FRAMES_A_SECOND = 25.0  # of its encoder


@dataclass(frozen=True)
class Size:
    """Of the model."""

    dim: int
    layers: int
    heads: int
    hidden: int
    predictor: int
    joiner: int
    channels: tuple[int, int]


SIZES = {"80m": Size(512, 12, 8, 2048, 512, 640, (64, 32)), "tiny": Size(16, 2, 2, 32, 8, 8, (4, 4))}


class ConformerTransducer(nn.Module):
    """The modules of the recipe.

    Args:
        config: of SIZES.
    """

    def __init__(self, config: str) -> None:
        super().__init__()
        size = SIZES[config]
        self.blank_id, outputs = 0, VOCABULARY[config] + 1
        self.fbank = Fbank(sample_rate=16000, n_fft=512, n_mels=80, win_length=32)
        self.normalize = InputNormalization(norm_type="global", update_until_epoch=4)
        self.normalize(torch.randn(1, 100, 80), torch.ones(1))  # without a mean it cannot be used
        self.front_end = ConvolutionFrontEnd(
            input_shape=(8, 10, 80),
            num_blocks=2,
            num_layers_per_block=1,
            out_channels=size.channels,
            kernel_sizes=(3, 3),
            strides=(2, 2),
            residuals=(False, False),
        )
        self.transformer = TransformerASR(
            input_size=20 * size.channels[1],
            tgt_vocab=outputs,
            d_model=size.dim,
            nhead=size.heads,
            num_encoder_layers=size.layers,
            num_decoder_layers=0,
            d_ffn=size.hidden,
            dropout=0.1,
            activation=nn.GELU,
            encoder_module="conformer",
            attention_type="RelPosMHAXL",
            normalize_before=True,
            causal=False,
        )
        self.encoder = EncoderWrapper(self.transformer)
        self.project_encoder = Linear(input_size=size.dim, n_neurons=size.joiner, bias=False)
        self.embedding = Embedding(num_embeddings=outputs, consider_as_one_hot=True, blank_id=self.blank_id)
        self.predictor = LSTM(input_shape=[None, None, outputs - 1], hidden_size=size.predictor, num_layers=1, re_init=True)
        self.project_predictor = Linear(input_size=size.predictor, n_neurons=size.joiner, bias=False)
        self.joiner = Transducer_joint(joint="sum", nonlinearity=nn.GELU)
        self.output = Linear(input_size=size.joiner, n_neurons=outputs, bias=False)


class PacedOutput(nn.Module):
    """The output layer, its logits of BLANK overruled: 4 tokens a second, call after call."""

    def __init__(self, output: nn.Module, blank_id: int) -> None:
        super().__init__()
        self.output, self.blank_id = output, blank_id
        self.speaks = speaking(FRAMES_A_SECOND).tolist()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        """x (…, D) → logits (…, V)."""
        logits = self.output(x)
        logits[..., self.blank_id] = -1e4 if self.speaks[self.calls % len(self.speaks)] else 1e4
        self.calls += 1
        return logits


def streaming_asr(model: ConformerTransducer, device: str) -> StreamingASR:
    """The model behind SpeechBrain's own streaming interface, which says 4 tokens a second."""
    model.eval()
    features = LengthsCapableSequential(model.fbank, model.normalize, model.front_end)
    properties = stack_filter_properties([model.fbank, model.front_end])
    searcher = TransducerBeamSearcher(
        decode_network_lst=[model.embedding, model.predictor, model.project_predictor],
        tjoint=model.joiner,
        classifier_network=[PacedOutput(model.output, model.blank_id)],
        blank_id=model.blank_id,
        beam_size=1,
        nbest=1,
    )
    hparams: dict[str, Any] = {
        "fea_streaming_extractor": StreamingFeatureWrapper(features, properties),
        "make_decoder_streaming_context": TransducerGreedySearcherStreamingContext,
        "decoding_function": searcher.transducer_greedy_decode_streaming,
        "make_tokenizer_streaming_context": lambda: None,
        "tokenizer_decode_streaming": lambda tokenizer, tokens, context: "".join(f" w{token}" for token in tokens),
        "tokenizer": None,
    }
    modules = {"enc": model.encoder, "proj_enc": model.project_encoder, "model": model}
    return StreamingASR(modules, hparams, run_opts={"device": device})


def push_all(asr: StreamingASR, context: Any, samples: Tensor) -> str:
    """One chunk of samples (S,), in the text that it adds."""
    with torch.inference_mode():
        return str(asr.transcribe_chunk(context, samples.unsqueeze(0))[0])
