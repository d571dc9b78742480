"""Every check can fail: each mistake is caught by the check that is about it."""

import pytest
import torch

from reallm import registry
from reallm.adapters.conv import ConvolutionalAdapter
from reallm.cli.components import describe
from reallm.contract import ContractError, checks, emissions, searcher, summary
from reallm.contract.requirement import require_equal
from reallm.errors import InputError
from reallm.registry import KINDS, register
from reallm.systems.aed import AED
from reallm.systems.speech_reallm import SpeechReaLLM
from tests.dummies import broken

MISTAKES = [
    ("adapter", broken.ForgetfulAdapter, "check_streaming_equals_offline"),
    ("adapter", broken.PaddingReader, "check_padding_changes_nothing"),
    ("adapter", broken.RowMixer, "check_rows_do_not_mix"),
    ("adapter", broken.ShortCounter, "check_shapes_and_lengths"),
    ("adapter", broken.GrowingAdapter, "check_state_is_constant"),
    ("adapter", broken.RestlessAdapter, "check_resting_rows_keep_their_state"),
    ("adapter", broken.HeadstrongAdapter, "check_stack_and_unstack"),
    ("adapter", broken.HeadstrongAdapter, "check_reset_rows_begin_anew"),
    ("adapter", broken.IdleAdapter, "check_gradient_reaches_every_parameter"),
    ("encoder", broken.FarSightedEncoder, "check_nothing_beyond_the_look_ahead"),
    ("encoder", broken.UnclearedEncoder, "check_full_context"),
    ("frontend", broken.CentredFrontend, "check_nothing_beyond_the_look_ahead"),
    ("decoder", broken.BackwardDecoder, "check_future_has_no_effect"),
    ("decoder", broken.RestlessDecoder, "check_steps_equal_forward"),
    ("decoder", broken.RestlessDecoder, "check_resting_rows_keep_their_future"),
    ("decoder", broken.OtherWindowDecoder, "check_steps_equal_forward"),
    ("predictor", broken.RestlessPredictor, "check_steps_equal_forward"),
    ("predictor", broken.RestlessPredictor, "check_resting_rows_keep_their_future"),
    ("predictor", broken.WidePredictor, "check_shapes"),
    ("interleaver", broken.TwoPolicies, "check_run_time_equals_training"),
    ("interleaver", broken.Clamper, "check_late_tokens_are_refused"),
    ("interleaver", broken.EarlyInterleaver, "check_no_token_is_early"),
    ("interleaver", broken.LastEmbeddingDropper, "check_sequences_are_whole"),
    ("interleaver", broken.TalkativeChunks, "check_responses_are_regular"),
    ("interleaver", broken.Prophet, "check_due_is_not_after_the_answer"),
    ("searcher", broken.UncountedCuts, "check_responses_are_capped"),
    ("searcher", broken.FirstOfAStep, "check_number_of_embeddings_a_step"),
    ("tokenizer", broken.LeadingSpaces, "check_incremental_decoding"),
    ("tokenizer", broken.Swallower, "check_unknown_characters"),
    ("system", broken.NoFlush, "check_streaming_equals_offline"),
    ("system", broken.PaddingLoss, "check_loss_ignores_padding"),
    ("system", broken.MeanOfMeans, "check_parts_of_a_batch_weigh_as_one"),
    ("system", broken.UncountedLoss, "check_gradient_reaches_every_parameter"),
    ("adapter", broken.AlteredAdapter, "check_is_rebuilt_from_its_spec"),
    ("adapter", broken.UnsteadyAdapter, "check_checkpoint_round_trip"),
    ("adapter", broken.WrongGeometryAdapter, "check_geometry_is_the_stride"),
    ("frontend", broken.WrongGeometryFrontend, "check_geometry_is_the_frame_shift"),
    ("encoder", broken.BoastfulEncoder, "check_look_ahead_is_declared"),
    ("encoder", broken.AmnesiacEncoder, "check_left_context_is_used"),
    ("decoder", broken.NarrowDecoder, "check_shapes"),
    ("decoder", broken.HeadstrongDecoder, "check_rows_of_different_age"),
    ("searcher", broken.HeadstrongSearcher, "check_state_algebra"),
    ("searcher", broken.CrowdedSearcher, "check_rows_do_not_mix"),
    ("tokenizer", broken.BackwardTokenizer, "check_round_trip"),
    ("tokenizer", broken.ForgedFingerprint, "check_fingerprint"),
    ("aligner", broken.PastTheEnd, "check_alignments_are_well_formed"),
    ("aligner", broken.Optimist, "check_failures_are_values"),
    ("aligner", broken.CrowdedAligner, "check_rows_do_not_mix"),
    ("system", broken.Borrower, "check_streaming_equals_offline"),
    ("system", broken.PaddingHearer, "check_rows_and_padding"),
    ("system", broken.HeadstrongSystem, "check_state_algebra"),
    ("system", broken.EmptySpans, "check_token_span"),
]


def check_of(kind, name):
    return next(check for check in checks(kind) if check.__name__ == name)


@pytest.mark.parametrize(("kind", "component", "name"), MISTAKES, ids=lambda value: getattr(value, "__name__", value))
def test_mistakes_are_caught(kind, component, name):
    with pytest.raises(ContractError):
        check_of(kind, name)(component)


@pytest.mark.parametrize("check", searcher.CHECKS)
def test_a_bounded_search_is_heard_to_its_end(check):
    check(broken.Bounded)


def test_a_system_with_a_bounded_search_is_heard_to_its_end():
    class OfBoundedSteps(SpeechReaLLM):
        """One position a step."""

        @classmethod
        def tiny(cls):
            system = super().tiny()
            system.searcher.positions = 1
            return system

    for name in ("check_streaming_equals_offline", "check_state_algebra"):
        check_of("system", name)(OfBoundedSteps)


@pytest.mark.parametrize(
    ("component", "said"),
    [
        (broken.SecretlyPending, "tokens"),
        (broken.Endless, "pending after 500 steps"),
        (broken.FullWithoutReason, r"full \[.*of which are pending"),
    ],
)
def test_mistakes_about_what_is_pending_are_caught(component, said, monkeypatch):
    monkeypatch.setattr(emissions, "MOST_STEPS", 500)
    with pytest.raises(ContractError, match=said):
        check_of("searcher", "check_number_of_embeddings_a_step")(component)


def test_a_component_without_tiny_is_told_so():
    class Bare(ConvolutionalAdapter):
        """No tiny."""

        tiny = None

    with pytest.raises(ContractError, match=r"no class method tiny\(\)"):
        check_of("adapter", "check_keeps_protocol")(Bare)


def test_a_missing_member_is_named():
    class Lacking(ConvolutionalAdapter):
        """No stride."""

        @classmethod
        def tiny(cls):
            adapter = super().tiny()
            del adapter.stride
            return adapter

    with pytest.raises(ContractError, match=r"lacks stride of protocols\.Adapter"):
        check_of("adapter", "check_keeps_protocol")(Lacking)


def test_a_system_that_streams_needs_all_of_streaming():
    class Half(AED):
        """Steps, and has no state."""

        def step(self, wav, lens, final, state):
            """Never called."""

    with pytest.raises(ContractError, match=r"lacks init_state of protocols\.StreamingSystem"):
        check_of("system", "check_keeps_protocol")(Half)
    check_of("system", "check_keeps_protocol")(AED)


def test_an_argument_that_no_configuration_can_check_is_refused():
    class Loose(ConvolutionalAdapter):
        """Takes anything."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)

    with pytest.raises(ContractError, match="kwargs"):
        check_of("adapter", "check_is_described")(Loose)


def test_every_check_has_its_mistake():
    tried = {name for _, _, name in MISTAKES} | {"check_keeps_protocol", "check_is_described"}  # these two: below
    assert {check.__name__ for kind in KINDS for check in checks(kind)} == tried


@pytest.mark.parametrize("kind", KINDS)
def test_every_check_says_what_must_hold(kind):
    names = [check.__name__ for check in checks(kind)]
    assert len(set(names)) == len(names)
    assert all(summary(check).endswith(".") for check in checks(kind))


def test_unknown_kind():
    with pytest.raises(InputError, match="did you mean 'encoder'"):
        checks("encodr")


def test_differences_are_measured():
    require_equal(torch.ones(2) + 1e-7, torch.ones(2), "close", 1e-6)
    with pytest.raises(ContractError, match=r"differs by 0\.5"):
        require_equal(torch.full((2,), 1.5), torch.ones(2), "far", 1e-6)
    with pytest.raises(ContractError, match="bit-equal"):
        require_equal(torch.ones(2) + 1e-6, torch.ones(2), "close")
    with pytest.raises(ContractError, match="shape"):
        require_equal(torch.ones(2), torch.ones(3), "short")


def test_a_component_without_a_constructor_takes_no_arguments():
    @register("aligner", "without_constructor")
    class Plain:
        """Takes nothing."""

    try:
        check_of("aligner", "check_is_described")(Plain)
        assert describe("aligner")[-1]["parameters"] == []
        assert Plain().component_spec.kwargs == {}
        with pytest.raises(TypeError):
            Plain(1)
    finally:
        del registry._components["aligner", "without_constructor"]
