"""Programs as files, and files as functions of named tensors: torch.export and ONNX."""

import contextlib
import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from reallm.errors import InputError
from reallm.exporting.programs import Program, Tensors

Run = Callable[[Tensors], Tensors]

ROWS = 3  # of an example: torch.export takes 0 and 1 for constants


def trace(program: Program, inputs: Tensors, streams: int | None) -> torch.export.ExportedProgram:
    """The program as a graph, for any number of streams, or for as many as ``inputs`` have where ``streams`` says so.

    Raises InputError where a step cannot be traced.
    """
    shapes = None if streams else ({name: {0: torch.export.Dim("B", min=1)} for name in inputs},)
    try:
        with torch.no_grad():
            return torch.export.export(program, (inputs,), dynamic_shapes=shapes)
    except Exception as error:  # whatever a component's step does that a graph cannot
        reason = " ".join(str(error).split(". ")[0].split())[:200]
        raise InputError(f"the {program.name} step cannot be exported ({type(error).__name__}: {reason})") from error


def write_torch(traced: torch.export.ExportedProgram, path: Path, inputs: Tensors, outputs: Tensors) -> Run:
    """A ``.pt2`` file: a function from named inputs, in this order, to named outputs."""
    torch.export.save(traced, path)
    return torch.export.load(path).module()


def write_onnx(traced: torch.export.ExportedProgram, path: Path, inputs: Tensors, outputs: Tensors) -> Run:
    """An ``.onnx`` file; beside it a ``.data`` file, where the weights exceed 2 GB."""
    from onnxscript import opset18
    from onnxscript.ir import DataType

    def where(condition: Any, yes: Any, no: Any) -> Any:
        if yes.dtype != DataType.BOOL:
            return opset18.Where(condition, yes, no)
        return opset18.Or(opset18.And(condition, yes), opset18.And(opset18.Not(condition), no))  # onnxruntime has no Where of truth values

    # The fused attention lays out memory in another way than what the converter makes of it, and views of the one are none of the other.
    plain = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    with plain, warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        converted = torch.onnx.export(
            traced,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamo=True,
            verbose=False,
            custom_translation_table={torch.ops.aten.where.self: where},
        )
        assert converted is not None
        _give_way(converted.model.graph, {*inputs, *outputs})
        converted.save(path)
    return onnx_function(path)


def onnx_function(path: Path) -> Run:
    """What onnxruntime computes with an ``.onnx`` file."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Tensors) -> Tensors:
        arrays = session.run(names, {name: tensor.numpy() for name, tensor in inputs.items()})
        return {name: torch.from_numpy(array) for name, array in zip(names, arrays, strict=True)}

    return run


def _give_way(graph: Any, names: set[str]) -> None:
    """Rename what lies inside a graph and is called like one of its inputs or outputs: the converter does not look."""
    ends = {id(value) for value in (*graph.inputs, *graph.outputs)}
    for node in graph.all_nodes():
        for value in node.outputs:
            if value.name in names and id(value) not in ends:
                value.name = f"inner.{value.name}"


WRITERS = {"torch_export": (".pt2", write_torch), "onnx": (".onnx", write_onnx)}
"""Format → the suffix of its files, and what writes one."""
