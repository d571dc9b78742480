"""The recognizer on a small real system: text does not depend on pieces, rates, neighbours or slots."""

import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import torch

from reallm.contract.system import talkative
from reallm.errors import InputError
from reallm.registry import find
from reallm.streaming.offline import OfflineRecognizer, recognizer_for
from reallm.streaming.recognizer import Recognizer, Stream
from reallm.tokenizers.character import CharacterTokenizer
from reallm.types import Hypothesis
from tests.dummies.engine_systems import alone, noise, talkative_system
from tests.dummies.recognizer import LevelSystem, no_memory, say, text_of

DIGITS = [3, 1, 4, 1, 5, 2, 6]


@pytest.fixture(scope="module")
def system() -> LevelSystem:
    return LevelSystem(CharacterTokenizer.tiny()).eval()


def push(stream: Stream, audio: np.ndarray, rate: int, piece: int, decode: bool = True) -> Hypothesis:
    for begin in range(0, len(audio), piece):
        stream.accept_waveform(audio[begin : begin + piece], rate)
        if decode:
            stream.result()
    return stream.finish()


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_text_is_the_offline_text_for_all_pieces_and_rates(system: LevelSystem, rate: int) -> None:
    audio = say(DIGITS, rate)
    offline = system.recognize(torch.from_numpy(say(DIGITS))[None], torch.tensor([len(say(DIGITS))]))
    assert system.tokenizer.decode(offline.token_ids[0, : offline.lens[0]].tolist()) == text_of(DIGITS)
    recognizer = Recognizer(system)
    results = [push(recognizer.stream(), audio, rate, piece) for piece in (rate // 50, rate * 16 // 100, rate, 137, 977, len(audio))]
    assert [r.text for r in results] == [text_of(DIGITS)] * len(results)
    times = [[(w.word, w.start, w.end, w.confidence) for w in r.words] for r in results]
    assert all(t == times[0] for t in times)
    assert push(recognizer.stream(), audio, rate, rate // 50, decode=False).text == text_of(DIGITS)


@pytest.mark.parametrize("trailing", [0.0, 0.011, 0.3])
@pytest.mark.parametrize("rate", [8000, 44100])
def test_finish_brings_out_the_last_word(system: LevelSystem, rate: int, trailing: float) -> None:
    for seed in range(8):
        audio = say([2, 5], rate, seed, trailing)
        stream = Recognizer(system).stream()
        stream.accept_waveform(audio, rate)
        assert stream.result().is_final is False
        final = stream.finish()
        assert final.text == "two five"
        assert final.is_final
        assert final.words[-1].end <= len(audio) / rate + 0.01


def test_flush_of_a_stream_that_ends_on_the_chunk_grid(system: LevelSystem) -> None:
    audio = np.zeros(2 * system.chunk_samples, dtype=np.float32)
    audio[-1600:] = 0.25
    for decode in (False, True):
        assert push(Recognizer(system).stream(), audio, 8000, system.chunk_samples, decode).text == "two"


def test_words_have_times_in_order_and_emission_at_accepted_seconds(system: LevelSystem) -> None:
    audio = say(DIGITS)
    early, late = Recognizer(system).stream(), Recognizer(system).stream()
    words = push(early, audio, 8000, 160).words
    edges = [t for w in words for t in (w.start, w.end)]
    assert edges == sorted(edges)
    chunk = system.chunk_samples / 8000
    for word in words[:-1]:
        assert word.emitted_at is not None
        assert word.emitted_at >= word.end
        assert word.emitted_at % chunk == pytest.approx(0, abs=1e-9) or chunk - word.emitted_at % chunk < 1e-9
    assert all(0 < w.confidence < 1 for w in words)
    assert words[0].confidence == pytest.approx(np.exp(-0.01 * 5))
    late.accept_waveform(audio, 8000)
    assert {w.emitted_at for w in late.result().words} == {len(audio) / 8000}
    at_16k = push(Recognizer(system).stream(), say(DIGITS, 16000), 16000, 320).words
    assert [w.emitted_at for w in at_16k] == pytest.approx([w.emitted_at for w in words], abs=0.15 + chunk)


def test_rows_of_different_ages_and_reused_slots(system: LevelSystem) -> None:
    random = np.random.default_rng(1)
    jobs = [[int(d) for d in random.integers(1, 7, random.integers(1, 6))] for _ in range(12)]
    recognizer = Recognizer(system, max_streams=3)
    waiting = list(range(len(jobs)))
    active: dict[int, tuple[Stream, np.ndarray]] = {}
    texts: dict[int, str] = {}
    while waiting or active:
        while waiting and len(active) < 3:
            job = waiting.pop()
            active[job] = (recognizer.stream(), say(jobs[job], seed=job, trailing=0.0))
        for stream, audio in active.values():
            stream.accept_waveform(audio[:777], 8000)
        recognizer.decode()
        active = {job: (stream, audio[777:]) for job, (stream, audio) in active.items()}
        over = [job for job, (_, audio) in active.items() if not len(audio)]
        for job, hypothesis in zip(over, recognizer.finish([active.pop(job)[0] for job in over]), strict=True):
            texts[job] = hypothesis.text
    assert [texts[job] for job in range(len(jobs))] == [text_of(digits) for digits in jobs]


def test_more_streams_than_slots_are_refused(system: LevelSystem) -> None:
    recognizer = Recognizer(system, max_streams=2)
    first, _ = recognizer.stream(), recognizer.stream()
    with pytest.raises(InputError, match="all 2 streams are in use"):
        recognizer.stream()
    first.close()
    assert recognizer.stream().finish().text == ""
    with pytest.raises(InputError, match="max_streams=0"):
        Recognizer(system, 0)
    with pytest.raises(InputError, match="closed before its end"):
        first.finish()


def test_a_stream_that_nobody_holds_gives_its_slot_back(system: LevelSystem) -> None:
    recognizer = Recognizer(system)

    def leaves_in_the_middle() -> None:
        stream = recognizer.stream()
        stream.accept_waveform(say([5, 2], trailing=0.0), 8000)
        stream.result()
        stream.accept_waveform(np.full(100, np.nan, dtype=np.float32), 8000)

    for _ in range(3):
        with suppress(InputError):
            leaves_in_the_middle()
        assert push(recognizer.stream(), say([4]), 8000, 160).text == "four", "nothing is left of the one before"


def test_a_stream_is_closed_at_the_end_of_its_context(system: LevelSystem) -> None:
    recognizer = Recognizer(system)
    with recognizer.stream() as stream:
        stream.accept_waveform(say([4]), 8000)
        with pytest.raises(InputError, match=r"^all 1 streams are in use: finish\(\) or close\(\) one, or raise max_streams$"):
            recognizer.stream()
    with pytest.raises(InputError, match="closed before its end"):
        stream.finish()
    with recognizer.stream() as second:
        second.accept_waveform(say([2]), 8000)
        assert second.finish().text == "two"
        third = recognizer.stream()
    with pytest.raises(InputError, match="all 1 streams"):
        recognizer.stream()
    assert third.finish().text == "", "the slot of its own, which the second had given back before"


def test_what_goes_wrong_in_decoding_closes_the_streams_that_were_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    system = LevelSystem(CharacterTokenizer.tiny()).eval()
    recognizer = Recognizer(system, max_streams=2)
    broken, resting = recognizer.stream(), recognizer.stream()
    resting.accept_waveform(say([6])[:160], 8000)
    broken.accept_waveform(say([4, 2]), 8000)
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="no memory"):
        patch.setattr(system, "step", no_memory)
        broken.result()
    fresh = recognizer.stream()
    fresh.accept_waveform(say([5]), 8000)
    resting.accept_waveform(say([6])[160:], 8000)
    assert [hypothesis.text for hypothesis in recognizer.finish([fresh, resting])] == ["five", "six"]
    with pytest.raises(InputError, match="closed before its end"):
        broken.finish()


def test_what_is_no_system_is_told_how_to_get_one() -> None:
    for given, said in (("x", r"a str: give it load\('x'\), from reallm.bundle"), (None, r"a NoneType: give it load\(PATH\), from")):
        for make in (Recognizer, OfflineRecognizer, recognizer_for):
            with pytest.raises(InputError, match=f"^a recognizer needs a system, not {said}"):
                make(given)  # type: ignore[arg-type]


def test_bad_audio_is_refused_and_leaves_the_stream_as_it_was(system: LevelSystem) -> None:
    stream = Recognizer(system).stream()
    audio = say([4])
    for bad in (np.nan, np.inf):
        broken = audio.copy()
        broken[100] = bad
        with pytest.raises(InputError, match="1 samples that are NaN"):
            stream.accept_waveform(broken, 8000)
    with pytest.raises(InputError, match="uint8"):
        stream.accept_waveform(np.zeros(10, dtype=np.uint8), 8000)
    with pytest.raises(InputError, match="transpose"):
        stream.accept_waveform(np.zeros((2, 8000), dtype=np.float32), 8000)
    with pytest.raises(InputError, match="sample rate 0"):
        stream.accept_waveform(audio, 0)
    stream.accept_waveform(audio, 8000)
    with pytest.raises(InputError, match="began with 8000"):
        stream.accept_waveform(audio, 16000)
    assert stream.finish().text == "four"
    assert stream.result().text == "four"
    with pytest.raises(InputError, match="finished"):
        stream.accept_waveform(audio, 8000)


@pytest.mark.parametrize("which", ["speech_reallm", "transducer beam", "ctc"])
def test_scores_that_become_nan_fail_their_stream_and_leave_nothing_in_the_slot(which: str) -> None:
    recognizer, audio = Recognizer(talkative_system(which), max_streams=2), noise(4, 9000)
    sick, healthy = recognizer.stream(), recognizer.stream()
    sick.accept_waveform(np.full(9000, 3e38, dtype=np.float32), 8000)
    healthy.accept_waveform(audio, 8000)
    recognizer.decode()
    for use in (sick.result, sick.partial, sick.finish, lambda: sick.accept_waveform(audio, 8000)):
        with pytest.raises(InputError, match=r"^the model's scores became NaN"):
            use()
    assert (sick.current().text, sick.is_final, sick.is_ready) == ("", False, False)
    expected = alone(recognizer.system, audio).text
    again = recognizer.stream()
    again.accept_waveform(audio, 8000)
    assert [stream.finish().text for stream in (healthy, again)] == [expected, expected] and expected


@pytest.mark.parametrize("name", ["aed", "decoder_only"])
def test_scores_that_become_nan_fail_a_whole_utterance(name: str) -> None:
    system = talkative(find("system", name))
    recognizer = OfflineRecognizer(system, max_streams=2)
    silent = recognizer.stream().finish()
    assert silent.is_final, "no audio is no error"
    for parameter in system.parameters():
        parameter.data.fill_(np.nan)
    stream = recognizer.stream()
    stream.accept_waveform(noise(1, 3000), 8000)
    with pytest.raises(InputError, match=r"^the model's scores became NaN"):
        stream.finish()


def test_types_and_channels(system: LevelSystem) -> None:
    audio = say([4, 2])
    for given in (
        (audio * 32768).astype(np.int16),
        torch.from_numpy(audio),
        audio.astype(np.float64),
        np.stack([audio * 2, audio * 0], axis=1),
        (audio * 2**31).astype(np.int32),
    ):
        assert push(Recognizer(system).stream(), given, 8000, 999).text == "four two"


def test_empty_audio(system: LevelSystem) -> None:
    stream = Recognizer(system).stream()
    stream.accept_waveform(np.zeros(0, dtype=np.float32), 44100)
    assert stream.result().words == []
    final = stream.finish()
    assert (final.text, final.is_final, final.token_ids) == ("", True, [])


def test_the_caller_may_reuse_its_buffer(system: LevelSystem) -> None:
    audio, buffer = say([4, 2]), np.zeros(100, dtype=np.float32)
    stream = Recognizer(system).stream()
    for begin in range(0, len(audio), 100):
        piece = audio[begin : begin + 100]
        buffer[: len(piece)] = piece
        stream.accept_waveform(buffer[: len(piece)], 8000)
    assert stream.finish().text == "four two"


def test_results_do_not_change_afterwards(system: LevelSystem) -> None:
    audio = say(DIGITS)
    stream = Recognizer(system).stream()
    stream.accept_waveform(audio[:16000], 8000)
    before = stream.result()
    text, words = before.text, list(before.words)
    stream.accept_waveform(audio[16000:], 8000)
    assert len(stream.finish().words) > len(words) > 0
    assert (before.text, before.words) == (text, words)


def test_memory_is_constant_but_for_the_transcript(system: LevelSystem) -> None:
    stream = Recognizer(system).stream()
    silence = np.zeros(44100, dtype=np.float32)

    def feed(seconds: int) -> int:
        for _ in range(seconds):
            stream.accept_waveform(silence, 44100)
            stream.result()
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    feed(100)  # until what Python keeps of freed objects has its size
    before = feed(1)
    grown = feed(200) - before
    tracemalloc.stop()
    assert grown < 20_000


def test_training_mode_is_refused() -> None:
    with pytest.raises(InputError, match="eval"):
        Recognizer(LevelSystem(CharacterTokenizer.tiny()).train())
