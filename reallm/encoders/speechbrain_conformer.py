"""SpeechBrain's streaming Conformer encoder, and its published checkpoints. Legend: reallm/types.py."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from reallm.encoders._chunked import ChunkedEncoder
from reallm.encoders._speechbrain import Projection, SpeechBrainLayer, StreamingFrontEnd
from reallm.errors import InputError, at_least
from reallm.protocols import ChunkSpec
from reallm.registry import register


@register("encoder", "speechbrain_conformer")
class SpeechBrainConformerEncoder(ChunkedEncoder):
    """The encoder of SpeechBrain's conformer transducer: ConvolutionFrontEnd, TransformerASR's input projection, and a
    ConformerEncoder with relative positions, trained with dynamic chunks (their modules and weights; see _speechbrain.py for their calls).

    ``forward`` with a chunk is SpeechBrain's ``encode`` with a DynChunkTrainConfig(size, left / size); ``None`` is that without
    one. SpeechBrain pads a batch at the end of its longest row; here each row is what it is alone. The defaults are those of the
    recipe LibriSpeech/ASR/transducer/hparams/conformer_transducer.yaml, whose features are the frontend ``speechbrain_fbank``.

    Args:
        input_dim: F.
        dim: D.
        layers: number of Conformer layers.
        heads: attention heads; ``dim`` must be a multiple of them.
        hidden: width of the feed-forward modules.
        kernel: frames of the depthwise convolution, an odd number.
        channels: of the two blocks of the front end, which halve the frame rate each.
        chunk_size: C of streaming, in encoder frames of 4 feature frames.
        left: encoder frames before the chunk that are attended to.
        dropout: probability.

    Raises InputError for a size below 1, an even kernel, and heads that do not divide ``dim``.
    """

    def __init__(
        self,
        input_dim: int = 80,
        dim: int = 512,
        layers: int = 12,
        heads: int = 8,
        hidden: int = 2048,
        kernel: int = 31,
        channels: tuple[int, int] = (64, 32),
        chunk_size: int = 16,
        left: int = 64,
        dropout: float = 0.1,
    ) -> None:
        # Of the extra 'train': listing components must not need it.
        from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
        from speechbrain.lobes.models.transformer.TransformerASR import TransformerASR

        at_least(1, input_dim=input_dim, dim=dim, layers=layers, heads=heads, hidden=hidden, kernel=kernel)
        at_least(1, **{f"channels[{index}]": size for index, size in enumerate(channels)})
        if kernel % 2 == 0:
            raise InputError(f"kernel {kernel}: a chunk convolution has an odd one")
        if dim % heads:
            raise InputError(f"{heads} heads of a model of width {dim}: choose a width that is a multiple of them")
        cnn = ConvolutionFrontEnd(
            input_shape=(8, 10, input_dim),
            num_blocks=2,
            num_layers_per_block=1,
            out_channels=tuple(channels),
            kernel_sizes=(3, 3),
            strides=(2, 2),
            residuals=(False, False),
            dropout=dropout,
        )
        front_end = StreamingFrontEnd(cnn, input_dim)
        transformer: Any = TransformerASR(
            tgt_vocab=1,
            input_size=front_end.output_shape[0] * front_end.output_shape[1],
            d_model=dim,
            nhead=heads,
            num_encoder_layers=layers,
            num_decoder_layers=0,
            d_ffn=hidden,
            dropout=dropout,
            kernel_size=kernel,
            encoder_module="conformer",
            attention_type="RelPosMHAXL",
            normalize_before=True,
            causal=False,
        )
        super().__init__(
            input_dim,
            dim,
            ChunkSpec(chunk_size, left),
            front_end,
            Projection(transformer.custom_src_module),
            (SpeechBrainLayer(layer) for layer in transformer.encoder.layers),
            transformer.encoder.norm,
        )

    @classmethod
    def tiny(cls) -> Self:
        """Two layers, chunks of 4 frames with 8 to the left."""
        return cls(input_dim=8, dim=16, layers=2, heads=2, hidden=24, kernel=5, channels=(4, 3), chunk_size=4, left=8, dropout=0.0)

    def load_speechbrain(self, weights: Mapping[str, Tensor]) -> None:
        """Take the weights of a published ``model.ckpt``: a ModuleList whose first two are the CNN and the wrapped TransformerASR.

        Raises InputError where they do not fit this encoder.
        """
        parts: dict[str, nn.Module] = {
            "0.": self.subsampling.cnn,
            "1.transformer.custom_src_module.": self.embedding.get_submodule("source"),
            "1.transformer.encoder.norm.": self.output,
        }
        parts |= {f"1.transformer.encoder.layers.{n}.": layer.get_submodule("layer") for n, layer in enumerate(self.layers)}
        beyond = f"1.transformer.encoder.layers.{len(self.layers)}."
        if any(name.startswith(beyond) for name in weights):
            raise InputError(f"the checkpoint has more than {len(self.layers)} layers: build the encoder with as many")
        for prefix, module in parts.items():
            part = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            try:
                module.load_state_dict(part)
            except RuntimeError as error:
                raise InputError(f"'{prefix}' of the checkpoint does not fit the encoder ({' '.join(str(error).split())})") from None


def load_published(folder: Path, frontend: Any, encoder: SpeechBrainConformerEncoder) -> None:
    """Take ``normalizer.ckpt`` and ``model.ckpt`` of a SpeechBrain checkpoint or model in ``folder`` into a frontend and an encoder.

    They hold pickles: they are read with ``weights_only``, which builds tensors and plain values alone. To begin a training with them,
    export a system that holds the two, and name that bundle: ``reallm train --init BUNDLE``.

    Raises InputError where a file is missing, is none of these, or does not fit.
    """
    read = {}
    for name in ("normalizer.ckpt", "model.ckpt"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}: name a folder of a SpeechBrain checkpoint, or of a published model")
        try:
            read[name] = torch.load(folder / name, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged or foreign pickle raises
            raise InputError(f"{folder / name} is no checkpoint of tensors ({' '.join(str(error).split())[:200]})") from None
    mean, std = (read["normalizer.ckpt"].get(name) for name in ("glob_mean", "glob_std"))
    if mean is None or std is None or mean.shape != frontend.mean.shape:
        raise InputError(f"{folder}/normalizer.ckpt has no mean of {frontend.output_dim} features: build the frontend as trained")
    encoder.load_speechbrain(read["model.ckpt"])
    frontend.set_statistics(mean, std)
