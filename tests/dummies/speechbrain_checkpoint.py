"""A checkpoint as SpeechBrain's recipe of a streaming conformer writes it, small."""

from pathlib import Path
from typing import Any

import torch
from speechbrain.lobes.features import Fbank
from speechbrain.lobes.models.convolution import ConvolutionFrontEnd
from speechbrain.lobes.models.transformer.TransformerASR import EncoderWrapper, TransformerASR
from speechbrain.processing.features import InputNormalization
from speechbrain.utils.checkpoints import Checkpointer
from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig

SIZES: dict[str, Any] = {"dim": 24, "layers": 2, "heads": 3, "hidden": 40, "kernel": 7, "channels": (6, 4)}  # of the encoder that takes it


class Published:
    """SpeechBrain's modules as the recipe composes them, with random weights and :data:`SIZES`, and a checkpoint of them in ``folder``."""

    def __init__(self, folder: Path, sample_rate: int = 8000, mels: int = 20, fft: int = 256) -> None:
        torch.manual_seed(0)
        self.features = Fbank(sample_rate=sample_rate, n_fft=fft, n_mels=mels, win_length=32)
        self.normalize = InputNormalization(norm_type="global")
        self.normalize(10 * torch.randn(4, 50, mels) - 20)
        cnn = ConvolutionFrontEnd((8, 10, mels), 2, 1, (6, 4), (3, 3), (2, 2), residuals=(False, False))
        transformer = TransformerASR(
            input_size=mels,
            tgt_vocab=30,
            d_model=24,
            nhead=3,
            num_encoder_layers=2,
            num_decoder_layers=0,
            d_ffn=40,
            activation=torch.nn.GELU,
            kernel_size=7,
            encoder_module="conformer",
            attention_type="RelPosMHAXL",
            normalize_before=True,
            causal=False,
        )
        self.cnn, self.encoder = cnn, EncoderWrapper(transformer)
        model = torch.nn.ModuleList([cnn, self.encoder, torch.nn.Linear(3, 3)])
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.4)
        model.eval()
        self.normalize.eval()
        self.folder = Path(Checkpointer(folder, {"model": model, "normalizer": self.normalize}).save_checkpoint().path)

    def encode(self, feats: torch.Tensor, chunk: tuple[int, int] | None) -> torch.Tensor:
        config = DynChunkTrainConfig(*chunk) if chunk else None
        return self.encoder(self.cnn(self.normalize(feats)), dynchunktrain_config=config)
