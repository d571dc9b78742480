"""A language model of ``transformers`` from its folder, checked: what it can do is decided here, before anything heavy is loaded.

Nothing is downloaded and nothing is unpickled: a configuration is JSON, weights are safetensors, code is that of the installed package.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from reallm.errors import InputError, how_to_get, nearest
from reallm.layers.endless_rotary import EndlessRotary
from reallm.memory import free_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PretrainedConfig, PreTrainedModel

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ROWS = 16  # of every weight, that speak for it in the fingerprint
KINDS_OF_LAYER = {"full_attention", "sliding_attention"}
GIB = 2**30


def need(package: str) -> Any:
    """The module of an optional package. Raises InputError with the command that installs it."""
    import importlib

    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise InputError(f"decoder 'huggingface' needs {error.name}: {how_to_get('llm')}") from None


def read_config(path: Path) -> PretrainedConfig:
    """The configuration in the file ``path`` (an LLM's config.json).

    Raises InputError for a file that is missing or is no configuration of a causal language model that can be streamed: one whose
    layers keep other things than keys and values, or whose attention does not take a mask.
    """
    transformers = need("transformers")
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the config.json in it")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: name the config.json of an LLM; tools/llm_config.py makes one") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} is not a readable JSON file ({error}): name the config.json of an LLM") from None
    known = {config.model_type: model for config, model in transformers.MODEL_FOR_CAUSAL_LM_MAPPING.items()}
    name = values.pop("model_type", None) if isinstance(values, dict) else None
    if name not in known:
        what = f"model_type '{name}'{nearest(str(name), known)}" if name else "no model_type"
        raise InputError(f"{path} has {what}: the installed transformers {transformers.__version__} has no causal LLM of it")
    if values.get("quantization_config"):
        raise InputError(f"{path}: the weights of this LLM are quantized: name one of full precision")
    for private in [key for key in values if key.startswith("_") or key == "attn_implementation"]:
        del values[private]  # which may name kernels to be downloaded
    try:
        config = transformers.AutoConfig.for_model(name, **values)
    except Exception as error:  # whatever a configuration class does with values that it does not know
        raise InputError(f"{path} is no configuration of {name} ({' '.join(str(error).split())}): copy it again") from None
    if config.get_text_config() is not config:
        raise InputError(f"{path}: {name} is more than a language model: name the config.json and the weights of one that reads text alone")
    found: Any = known[name]
    other = set(getattr(config, "layer_types", None) or ()) - KINDS_OF_LAYER
    if other or not (getattr(found, "_supports_attention_backend", False) and getattr(found, "_supports_sdpa", False)):
        why = f"has layers of {', '.join(sorted(other))}" if other else "computes its attention by itself"
        raise InputError(f"{path}: {name} {why}, and has no cache of fixed size here: take an LLM such as Llama, Qwen, Mistral or GPT-2")
    return config


def empty(config: PretrainedConfig, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """The model with weights that transformers draws from torch's generator; shapes alone where torch.device("meta") is in force.

    Raises InputError where memory does not have room for them.
    """
    transformers = need("transformers")
    if torch.get_default_device().type == "cpu":
        with torch.device("meta"):
            weights = empty(config, dtype).num_parameters()
        check_memory(weights, dtype, f"a {config.model_type}")
    with quiet():
        model: PreTrainedModel = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa")
    return model


def load(config: PretrainedConfig, folder: Path, dtype: torch.dtype, trained: bool) -> PreTrainedModel:
    """The model with the weights of a folder, which are all ``trained``, or all frozen.

    Raises InputError for a folder without safetensors, for weights that are damaged or not those of ``config``, and where memory does
    not have room for them.
    """
    transformers = need("transformers")
    half_by = (
        "set lora_rank above 0, for weights that are trained are float32, and dtype to bfloat16" if trained else "set dtype to bfloat16"
    )
    check_memory(sum(_count(file) for file in weight_files(folder)), dtype, str(folder), half_by)
    try:
        with quiet():
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                config=config,
                dtype=dtype,
                attn_implementation="sdpa",
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,  # they are told below
                output_loading_info=True,
            )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{folder}: its weights are not those of its config.json ({_short(error)}): copy the LLM again") from None
    wrong = sorted(report["mismatched_keys"])
    if wrong:
        raise InputError(
            f"{folder}: {len(wrong)} weights have other sizes than its config.json says, such as '{wrong[0][0]}': copy the LLM again"
        )
    missing = sorted(report["missing_keys"])
    if missing:
        raise InputError(f"{folder} lacks {len(missing)} weights of {config.model_type}, such as '{missing[0]}': copy the LLM again")
    loaded: PreTrainedModel = model
    return loaded


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of an LLM's folder. Raises InputError where there are none, or one is missing."""
    if not folder.is_dir():
        raise InputError(f"no LLM in {folder}: there is no such folder")
    if (folder / "adapter_config.json").is_file():
        raise InputError(f"{folder} holds an adapter of peft, not an LLM: merge it into its LLM (merge_and_unload), and save that")
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{index} is damaged ({error}): copy the LLM again") from None
    else:
        names = [SINGLE]
    for name in names:
        if not (folder / name).is_file():
            pickles = "; pickled weights are not loaded: save it anew with transformers" if list(folder.glob("*.bin")) else ""
            raise InputError(f"the LLM folder {folder} has no weights ({name} is not there){pickles}")
    return [folder / name for name in names]


def tokenizer_size(folder: Path) -> int | None:
    """The tokens of the tokenizer.json in an LLM's folder, added ones included: its highest id and one; None where there is none.

    Raises InputError for a damaged one.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        vocabulary = content["model"]["vocab"]
        ids = list(vocabulary.values()) if isinstance(vocabulary, dict) else list(range(len(vocabulary)))
        return 1 + max(int(i) for i in [*ids, *(token["id"] for token in content.get("added_tokens") or ())])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file} is damaged ({error}): copy the LLM again") from None


def tokenizer_fingerprint(folder: Path) -> str | None:
    """That of the tokenizer.json in an LLM's folder, as HuggingFaceTokenizer has it; None where there is none."""
    from reallm.tokenizers.huggingface import fingerprint_in

    file = folder / "tokenizer.json"
    return fingerprint_in(file) if file.is_file() else None


def fingerprint(folder: Path) -> str:
    """A sha256 over the names, types and shapes of all weights in a folder, and evenly spaced rows of each.

    It does not depend on how they are spread over files. Raises InputError as :func:`weight_files`, and for a damaged file.
    """
    found: dict[str, bytes] = {}
    for file in weight_files(folder):
        with _opened(file) as stored:
            for name in stored.keys():  # noqa: SIM118  it is no dictionary
                part = stored.get_slice(name)
                shape = part.get_shape()
                rows = sorted({i * (shape[0] - 1) // (ROWS - 1) for i in range(ROWS)}) if len(shape) > 1 else []
                values = [part[row : row + 1] for row in rows] if rows else [stored.get_tensor(name)]
                raw = b"".join(v.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes() for v in values)
                found[name] = f"{name}\0{part.get_dtype()}{tuple(shape)}\0".encode() + raw
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(found[name])
    return digest.hexdigest()


def check_fingerprint(folder: Path, wanted: str | None) -> str:
    """The fingerprint of a folder. Raises InputError, which names the LLM that is needed, where it is not ``wanted`` (None = any)."""
    try:
        own = fingerprint(folder)
    except InputError as error:
        if wanted is None:
            raise
        raise InputError(f"{error}; needed is the LLM of fingerprint {wanted[:12]}, which the model was trained beside") from None
    if wanted not in (None, own):
        raise another_base(folder, own, str(wanted))
    return own


def another_base(folder: object, own: str, wanted: str) -> InputError:
    """The error for LoRA weights and an LLM that do not belong together."""
    return InputError(
        f"the LoRA weights were trained beside another LLM than the one in {folder} (fingerprint {own[:12]}, needed {wanted[:12]}): "
        "name the folder of that one as the decoder's 'weights'"
    )


def check_memory(weights: int, dtype: torch.dtype, what: str, half_by: str = "") -> None:
    """Raises InputError where so many weights do not fit into the memory that is free.

    ``half_by``: what to set, so that bfloat16 is taken; nothing where it cannot be.
    """
    free = free_memory()
    wanted = weights * dtype.itemsize
    if wanted > free:
        half = weights * torch.bfloat16.itemsize
        fits = half_by and dtype != torch.bfloat16 and half <= free
        fix = f"bfloat16 needs {half / GIB:.1f}: {half_by}" if fits else "take a machine with more, or a smaller LLM"
        raise InputError(
            f"not enough memory for the {weights / 1e9:.2f} billion weights of {what}: "
            f"{str(dtype).removeprefix('torch.')} needs {wanted / GIB:.1f} GiB, {free / GIB:.1f} are free; {fix}"
        )


def windows(config: PretrainedConfig) -> dict[str, int]:
    """Of each kind of layer, the positions that it attends to by design; 0 = all."""
    sliding = int(getattr(config, "sliding_window", None) or 0)
    kinds = set(getattr(config, "layer_types", None) or ()) or {"sliding_attention" if sliding else "full_attention"}
    return {kind: sliding if kind == "sliding_attention" else 0 for kind in sorted(kinds)}


def make_endless(model: Any) -> int:
    """Wrap the rotary positions of a model so that a stream may go on for ever. Returns 0, or how many positions a model without them has.

    Raises InputError for one that has neither rotary positions nor a table of them.
    """
    rotary = [(name, module) for name, module in model.named_modules() if any(n.endswith("inv_freq") for n, _ in _own(module))]
    for name, module in rotary:
        model.set_submodule(name, EndlessRotary(module))
    if rotary:
        return 0
    most = int(getattr(model.config, "max_position_embeddings", None) or 0)
    tables = {m.num_embeddings for m in model.modules() if isinstance(m, nn.Embedding) and m is not model.get_input_embeddings()}
    if most and any(most <= rows <= most + 2 for rows in tables):
        return most
    raise InputError(f"{model.config.model_type} has neither rotary positions nor a table of them: take an LLM such as Llama or GPT-2")


def cache_shapes(config: PretrainedConfig) -> list[tuple[int, int, int]]:
    """Of each layer, (heads, width of a key, width of a value) that a position stores. Raises InputError for sizes that do not fit."""
    from reallm.layers.transformers_cache import ShapeProbe

    probe = ShapeProbe()
    model: Any
    try:
        with torch.device("meta"), torch.no_grad():
            model = empty(config, torch.bfloat16)  # the only type for which grouped products, of mixtures of experts, know their shapes
            model(
                inputs_embeds=torch.zeros(1, 1, model.get_input_embeddings().weight.size(1), dtype=torch.bfloat16),
                attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool),
                position_ids=torch.zeros(1, 1, dtype=torch.int64),
                past_key_values=probe,
                use_cache=True,
            )
    except (RuntimeError, ValueError) as error:
        raise InputError(f"the sizes in the configuration of {config.model_type} do not fit each other ({_short(error)})") from None
    return [(k[1], k[3], v[3]) for k, v in (probe.shapes[layer] for layer in sorted(probe.shapes))]


def add_lora(model: PreTrainedModel, rank: int, alpha: float, targets: Sequence[str] | None) -> None:
    """Freeze the model and put trainable low-rank maps beside its linear ones (Hu et al. 2021, LoRA, arXiv 2106.09685, section 4.1).

    Args:
        targets: the names of the linear maps, such as "q_proj"; None = all of them but the output layer.

    Raises InputError for a name that none of them has.
    """
    peft = need("peft")
    names = sorted({name.rpartition(".")[2] for name, module in model.named_modules() if _is_linear(module)})
    for target in targets or ():
        if target not in names:
            raise InputError(f"lora_targets: {model.config.model_type} has no '{target}'{nearest(target, names)}: of {', '.join(names)}")
    model.requires_grad_(False)
    transposed = any(type(module).__name__ == "Conv1D" for module in model.modules())
    chosen = list(targets) if targets else "all-linear"
    lora = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen, bias="none", fan_in_fan_out=transposed)
    peft.inject_adapter_in_model(lora, model)
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
            parameter.requires_grad_(True)


def compute_layers_twice(model: Any) -> None:
    """Gradient checkpointing (Chen et al. 2016, arXiv 1604.06174): training stores the input of each layer alone."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable  # its older name
    enable({"use_reentrant": False})


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def _own(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_buffers(recurse=False)


@contextmanager
def _opened(file: Path) -> Iterator[Any]:
    try:
        with safe_open(file, framework="pt") as stored:
            yield stored
    except (SafetensorError, OSError) as error:
        raise InputError(f"{file} is damaged ({error}): copy the LLM again") from None


def _count(file: Path) -> int:
    with _opened(file) as stored:
        return sum(math.prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


@contextmanager
def quiet() -> Iterator[None]:
    """Without progress bars and advice, which would be written between the lines of ours."""
    logging = need("transformers").utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
