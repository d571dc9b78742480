"""A system on an accelerator that is only imagined: its tensors have shapes and a device, and no numbers that the host could look at."""

from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode


def imagined_step(system: Any, rows: int = 3) -> Any:
    """The emission of the second step of ``system``, whose weights are gone afterwards.

    Raises DataDependentOutputException where the host reads a number, which would make it wait for the device.
    """
    replaces = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode():
            system._apply(lambda tensor: torch.empty(tensor.shape, dtype=tensor.dtype, device="cuda"))
            wav = torch.zeros(rows, system.chunk_samples, device="cuda")
            lens = torch.zeros(rows, dtype=torch.int64, device="cuda")
            state = system.init_state(rows, "cuda", torch.float32)
            for _ in range(2):
                emission, state = system.step(wav, lens, lens.bool(), state)
            return emission
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(replaces)
