#!/usr/bin/env python3
"""Writes the config.json of a language model: llm_config.py TYPE --out DIR [KEY=VALUE]… [--tokenizer TYPE=PATH] [--weights]

TYPE is a model type of transformers, such as llama, and KEY what its configuration takes (hidden_size=144); without any it is the
type's own default: for llama, Llama 2 with 7 billion weights. --tokenizer makes the vocabulary as large as a tokenizer's. --weights
writes random weights too (bfloat16), as published ones lie on a disk: for measurements.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("type")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--tokenizer", metavar="TYPE=PATH")
    parser.add_argument("--weights", action="store_true")
    parser.add_argument("values", nargs="*", metavar="KEY=VALUE")
    arguments = parser.parse_intermixed_args()

    import torch

    from reallm.cli.tokenizer import load_tokenizer
    from reallm.data.files import atomic_write
    from reallm.decoders._huggingface_llm import cache_shapes, empty, need, quiet, read_config
    from reallm.errors import InputError

    try:
        values = dict(value.split("=", 1) for value in arguments.values)
    except ValueError:
        parser.error(f"{arguments.values}: write KEY=VALUE, such as hidden_size=144")
    given = {"model_type": arguments.type, **{key: _value(value) for key, value in values.items()}}
    if arguments.tokenizer:
        given["vocab_size"] = load_tokenizer(arguments.tokenizer).vocab_size
    try:
        need("transformers")
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "config.json").write_text(json.dumps(given))
            config = read_config(Path(folder) / "config.json")
        unknown = [key for key in values if key not in type(config)().to_dict() and key not in config.attribute_map]
        if unknown:
            raise InputError(f"{arguments.type} has no '{unknown[0]}'")
        cache_shapes(config)  # builds it without memory: sizes that do not fit each other are found here
        config.architectures = None
        with atomic_write(arguments.out / "config.json") as handle:
            json.dump(config.to_diff_dict() | {"model_type": arguments.type}, handle, indent=2)
        with torch.device("meta"):
            count = empty(config).num_parameters()
        if arguments.weights:
            with quiet():
                empty(config, torch.bfloat16).save_pretrained(arguments.out)
    except InputError as error:
        sys.exit(f"error: {error}")
    print(f"{arguments.out}: {arguments.type}, {count:,} weights")


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except ValueError:
        return text


if __name__ == "__main__":
    main()
