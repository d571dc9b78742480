"""Weights of another system, and feature statistics."""

from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from reallm.errors import InputError
from reallm.training.initialize import fit_frontend, parts_of, stored_weights, take_weights
from tests.dummies.training import TinyData, TinySystem


def test_weights_of_equal_name_and_shape_are_taken() -> None:
    teacher, student = TinySystem(width=8), TinySystem(width=8)
    weights = {**teacher.state_dict(), "head.weight": torch.zeros(1, 9)}
    del weights["head.bias"]
    bias, head = student.head.bias.clone(), student.head.weight.clone()
    taken = take_weights(student, weights)
    assert torch.equal(student.encoder[0].weight, teacher.encoder[0].weight)
    assert torch.equal(student.head.bias, bias)
    assert torch.equal(student.head.weight, head)
    assert taken.absent == ["head.bias"]
    assert taken.reshaped == ["head.weight"]
    assert str(taken) == "weights taken over: batches_seen 1 of 1, encoder 4 of 4, head 0 of 2; another shape: head.weight"
    assert taken.has_all_of("encoder")
    assert not taken.has_all_of("head")
    assert taken.unlike() == "head (0 of 2, 1 of another shape, 1 absent from --init)"


def test_a_part_of_another_width_is_said_to_begin_at_random() -> None:
    narrow, wide = TinySystem(width=4), TinySystem(width=8)
    taken = take_weights(wide, narrow.state_dict())
    assert taken.unlike() == "encoder (0 of 4, 4 of another shape)", "of the head the bias is half"
    assert take_weights(wide, TinySystem(width=8).state_dict()).unlike() == ""
    assert take_weights(wide, {name: w for name, w in wide.state_dict().items() if "encoder" in name}).unlike() == "", "it has no head"


def test_layers_that_the_teacher_does_not_have_are_absent_and_not_of_another_shape() -> None:
    shallow = TinySystem(width=8).state_dict()
    del shallow["encoder.0.weight"], shallow["encoder.0.bias"], shallow["encoder.3.weight"]
    assert take_weights(TinySystem(width=8), shallow).unlike() == "encoder (1 of 4, 3 absent from --init)"


def test_only_the_parts_that_are_named_are_taken() -> None:
    teacher, student = TinySystem(width=8), TinySystem(width=8)
    head = student.head.weight.clone()
    assert list(parts_of(teacher.state_dict(), [])) == list(teacher.state_dict())
    taken = take_weights(student, parts_of(teacher.state_dict(), ["encoder", "batches_seen"]))
    assert torch.equal(student.encoder[0].weight, teacher.encoder[0].weight)
    assert torch.equal(student.head.weight, head)
    assert taken.absent == ["head.weight", "head.bias"]
    assert taken.unlike() == "", "the head was not asked for"
    with pytest.raises(InputError, match=r"--init-part 'encode' \(did you mean 'encoder'\?\): --init has batches_seen, encoder, head"):
        parts_of(teacher.state_dict(), ["encode"])


def test_half_precision_is_taken_as_the_systems_own() -> None:
    teacher, student = TinySystem(), TinySystem()
    take_weights(student, {name: weight.half() for name, weight in teacher.state_dict().items()})
    assert student.head.weight.dtype == torch.float32
    torch.testing.assert_close(student.head.weight, teacher.head.weight, rtol=1e-3, atol=1e-4)


def test_nothing_that_fits_is_an_error() -> None:
    with pytest.raises(InputError, match="no weight has the name and shape"):
        take_weights(TinySystem(), {"decoder.weight": torch.zeros(3)})


def test_weights_are_found_in_a_bundle_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle/bundle.json").write_text("{}")
    with pytest.raises(InputError, match=r"lacks model\.safetensors"):
        stored_weights(tmp_path / "bundle")
    save_file(TinySystem().state_dict(), tmp_path / "bundle/model.safetensors")
    assert stored_weights(tmp_path).keys() == TinySystem().state_dict().keys()
    (tmp_path / "bundle/optimizer.pt").write_bytes(b"")
    with pytest.raises(InputError, match=r"optimizer\.pt is a pickle or archive, which can run code"):
        stored_weights(tmp_path)
    (tmp_path / "bundle/optimizer.pt").unlink()
    whole = (tmp_path / "bundle/model.safetensors").read_bytes()
    (tmp_path / "bundle/model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"model\.safetensors is damaged"):
        stored_weights(tmp_path)
    with pytest.raises(InputError, match="neither a bundle"):
        stored_weights(tmp_path / "elsewhere")


class CountingFrontend(nn.Module):
    def fit(self, batches: Iterable[tuple[Tensor, Tensor]]) -> int:
        self.rows = [len(wav) for wav, _ in batches]
        return sum(self.rows)


def test_statistics_are_measured_over_the_first_utterances() -> None:
    system = TinySystem()
    assert fit_frontend(system, TinyData(), seed=1) == 0, "it has no frontend"
    system.frontend = CountingFrontend()
    assert fit_frontend(system, TinyData(size=7, rows=3), seed=1, utterances=10) == 12
    assert fit_frontend(system, TinyData(size=2, rows=3), seed=1, utterances=10) == 6
