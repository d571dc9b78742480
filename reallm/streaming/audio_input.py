"""What users push, as mono float32."""

from typing import Any

import numpy as np
import torch

from reallm.errors import InputError
from reallm.streaming.resampler import Audio

MAX_CHANNELS = 128  # more are taken for an array that lies the wrong way round


def as_mono(samples: Any) -> Audio:
    """A float32 copy (S,) of samples in [-1, 1].

    Args:
        samples: numpy array or tensor, (S,) or (S, channels), whose mean is taken; float, or int16 / int32 of full scale.

    Raises InputError for another shape or type, and for NaN or infinity.
    """
    if isinstance(samples, torch.Tensor):
        samples = samples.detach().cpu().numpy()
    array = np.asarray(samples)
    if array.dtype in (np.int16, np.int32):
        mono = array.astype(np.float32) / -float(np.iinfo(array.dtype).min)
    elif array.dtype.kind == "f":
        mono = array.astype(np.float32)
    else:
        raise InputError(f"samples of type {array.dtype}: give float in [-1, 1], int16 or int32")
    if mono.ndim == 2:
        if not 1 <= mono.shape[1] <= MAX_CHANNELS:
            raise InputError(
                f"audio of shape {mono.shape}: 2-D audio is (samples, channels) with 1 to {MAX_CHANNELS} channels; transpose it?"
            )
        mono = mono.mean(axis=1)
    if mono.ndim != 1:
        raise InputError(f"audio of shape {mono.shape}: give (samples,) or (samples, channels)")
    if not np.isfinite(mono).all():
        raise InputError(
            f"the audio holds {int((~np.isfinite(mono)).sum())} samples that are NaN or infinite: repair it before it is pushed"
        )
    return mono
