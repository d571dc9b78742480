"""What goes wrong, is too much, or never comes: it costs one stream at most."""

import asyncio

import numpy as np
import pytest

from reallm.errors import InputError
from reallm.streaming.engine import Engine
from reallm.streaming.engine_async import open_stream
from tests.dummies.engine_systems import alone, noise, talkative_system
from tests.dummies.fragile import LOUD, fragile
from tests.dummies.recognizer import say, text_of


class Clock:
    """Seconds that pass when they are told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("group", [1, 2])
def test_more_streams_than_slots_are_refused_or_wait(group: int) -> None:
    engine = Engine(fragile(), slots=2, group=group)
    first, _ = engine.stream(), engine.stream()
    with pytest.raises(InputError, match=r"^all 2 streams are in use: finish\(\) or close\(\) one, or make the engine with more slots"):
        engine.stream()
    first.close()
    assert engine.stream().finish().text == ""
    queued = Engine(fragile(), slots=1, max_waiting=2)
    holder = queued.stream()
    second, third = queued.stream_soon(), queued.stream_soon()
    with pytest.raises(InputError, match="in use, and 2 wait for one"):
        queued.stream()
    assert not second.done()
    holder.push(say([3, 1]), 8000)
    assert holder.finish().text == "three one"
    assert second.done() and not third.done(), "first come, first served"
    second.result().close()
    third.result().push(say([2]), 8000)
    with pytest.raises(InputError, match=r"wait for ever.*call start\(\)"):
        queued.stream()
    with pytest.raises(TimeoutError):
        queued.stream(timeout=0.0)
    assert third.result().finish().text == "two"
    assert queued.active == 0, "those that gave up waiting hold no slot"


GROUPS = [5, 1, 2]  # of 5 slots


@pytest.mark.parametrize("group", GROUPS)
def test_an_exception_in_one_streams_data_fails_that_stream_alone(group: int) -> None:
    system = fragile()
    engine = Engine(system, slots=5, group=group)
    streams = [engine.stream() for _ in range(5)]
    said = [[1 + (row + n) % 6 for n in range(5)] for row in range(5)]
    audio = [say(digits, seed=row) for row, digits in enumerate(said)]
    for row in (1, 3):
        audio[row] = audio[row].copy()
        audio[row][20000] = 2 * LOUD
    while any(len(one) for one in audio):
        for row, stream in enumerate(streams):
            if stream.error is None:
                stream.push(audio[row][:1000], 8000)
            audio[row] = audio[row][1000:]
        engine.decode()
    assert engine.active == 3
    for row in (0, 2, 4):
        assert streams[row].finish().text == text_of(said[row]), "the others go on as if nothing had been"
    for row in (1, 3):
        assert 0 < len(streams[row].result().text) < len(text_of(said[row])), "what was said before is kept"
        assert text_of(said[row]).startswith(streams[row].result().text)
        for use in (streams[row].finish, lambda: streams[1].push(say([1]), 8000), streams[row].reset):
            with pytest.raises(InputError, match=r"could not be decoded any further: RuntimeError\('too loud'\)") as caught:
                use()
        assert isinstance(caught.value.__cause__, RuntimeError)
    fresh = engine.stream()
    fresh.push(say([5]), 8000)
    assert fresh.finish().text == "five", "in a slot of one that failed"


def test_without_isolation_the_streams_of_the_step_fail() -> None:
    engine = Engine(fragile(), slots=3, isolates=False)
    loud, stepping, resting = (engine.stream() for _ in range(3))
    loud.push(np.full(8000, 2 * LOUD, dtype=np.float32), 8000)
    stepping.push(say([1, 2]), 8000)
    resting.push(say([4])[:100], 8000)
    engine.step()
    assert loud.error is not None and stepping.error is not None and resting.error is None
    resting.push(say([4])[100:], 8000)
    assert resting.finish().text == "four"


@pytest.mark.parametrize("group", [3, 1, 2])
def test_when_nothing_can_be_decoded_every_stream_says_so(group: int) -> None:
    system = fragile()
    engine = Engine(system, slots=3, group=group)
    streams = [engine.stream() for _ in range(3)]
    for stream in streams[:2]:
        stream.push(say([1]), 8000)
    system.broken = True
    engine.decode()
    system.broken = False
    assert [stream.error is None for stream in streams] == [False, False, True]
    streams[2].push(say([6]), 8000)
    assert streams[2].finish().text == "six"


def test_text_that_cannot_be_made_fails_its_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    system = fragile()
    engine = Engine(system, slots=2)
    first, second = engine.stream(), engine.stream()
    monkeypatch.setattr(first._listener._transcript, "append", lambda *token: 1 / 0)
    for stream in (first, second):
        stream.push(say([1]), 8000)
    assert second.finish().text == "one"
    assert first.result().text == ""
    assert first.error is not None and isinstance(first.error.__cause__, ZeroDivisionError)
    assert engine.active == 0 and first.partial().stable.text == ""
    last = engine.stream()
    monkeypatch.setattr(last._listener._transcript, "append", lambda *token: 1 / 0)
    last.push(say([1]), 8000)
    with pytest.raises(InputError, match="could not be decoded any further: ZeroDivisionError"):
        last.finish()
    assert not last.is_final


@pytest.mark.parametrize(("which", "group"), [("speech_reallm", 2), ("transducer beam", 1), ("ctc", 2)])
def test_scores_that_become_nan_fail_their_stream_and_leave_nothing_in_the_slot(which: str, group: int) -> None:
    system, audio = talkative_system(which), noise(4, 9000)
    engine = Engine(system, slots=2, group=group)
    sick, healthy = engine.stream(), engine.stream()
    sick.push(np.full(9000, 3e38, dtype=np.float32), 8000)
    healthy.push(audio, 8000)
    engine.decode()
    assert sick.error is not None and "became NaN" in str(sick.error)
    assert sick.result().text == ""
    expected = alone(system, audio).text
    again = engine.stream()
    again.push(audio, 8000)
    assert (healthy.finish().text, again.finish().text) == (expected, expected) and expected


def test_a_stream_at_its_decoders_capacity_ends_alone() -> None:
    from reallm.registry import find

    system = talkative_system("speech_reallm")
    weights, vocab = system.decoder.state_dict(), system.tokenizer.vocab_size + 1
    system.decoder = find("decoder", "llama")(vocab_size=vocab, dim=16, layers=2, heads=2, window=0, capacity=40)
    system.decoder.load_state_dict(weights)
    system.eval()
    engine = Engine(system, slots=2)
    long, short = engine.stream(), engine.stream()
    long.push(noise(1, 24000), 8000)
    short.push(noise(2, 3000), 8000)
    with pytest.raises(InputError, match="at the decoder's capacity: split the audio"):
        long.finish()
    assert long.result().text and short.finish().text == alone(system, noise(2, 3000)).text


def test_bad_audio_is_refused_and_leaves_the_stream_as_it_was() -> None:
    engine = Engine(fragile(), slots=1)
    stream, audio = engine.stream(), say([4])
    for bad, said in ((np.nan, "NaN"), (np.inf, "NaN or infinite")):
        broken = audio.copy()
        broken[7] = bad
        with pytest.raises(InputError, match=said):
            stream.push(broken, 8000)
    with pytest.raises(InputError, match="sample rate 0"):
        stream.push(audio, 0)
    assert stream.push(audio, 8000) == len(audio)
    with pytest.raises(InputError, match="began with 8000"):
        stream.push(audio, 16000)
    assert (stream.finish().text, stream.finish().text, stream.result().is_final) == ("four", "four", True)
    with pytest.raises(InputError, match=r"finished: get a new one from engine\.stream\(\)"):
        stream.push(audio, 8000)
    with engine.stream() as left:
        left.push(audio, 8000)
    with pytest.raises(InputError, match="closed before its end"):
        left.finish()
    odd = engine.stream()
    with pytest.raises(InputError, match="higher sample rate"):
        while True:
            odd.push(np.zeros(1, dtype=np.float32), 1)
    assert engine.active == 0


@pytest.mark.parametrize("group", [1, 2])
def test_a_stream_that_stops_sending_is_reclaimed_and_its_text_is_kept(group: int) -> None:
    clock = Clock()
    engine = Engine(fragile(), slots=2, idle_timeout=5.0, group=group, clock=clock)
    silent, lively = engine.stream(), engine.stream()
    silent.push(say([3, 6], trailing=0.0), 8000)
    for second in range(1, 12):
        clock.now = float(second)
        lively.push(say([1])[:80], 8000)
        engine.decode()
        assert silent.reclaimed == (second > 6), "five seconds after it was decoded"
    assert not lively.reclaimed and engine.active == 1
    assert silent.result().text == "three six" and silent.is_final and silent.finish().text == "three six"
    with pytest.raises(InputError, match=r"no audio for 5 s: the stream was ended, finish\(\) has its words"):
        silent.push(say([1]), 8000)
    assert silent.error is None
    clock.now = 20.0
    engine.decode()
    assert lively.reclaimed and engine.active == 0
    for_ever = Engine(fragile(), slots=1, idle_timeout=None, clock=clock)
    patient = for_ever.stream()
    clock.now = 1e9
    for_ever.decode()
    assert not patient.reclaimed


def test_a_backlog_is_no_idleness() -> None:
    clock = Clock()
    engine = Engine(fragile(), slots=1, idle_timeout=5.0, clock=clock)
    stream = engine.stream()
    stream.push(say([3, 6, 1, 2]), 8000)
    while True:
        clock.now += 6.0  # the machine is so slow
        if not engine._ring.wanting.any():
            break
        engine.step()
        assert not stream.reclaimed
    clock.now -= 6.0
    engine.step()
    assert not stream.reclaimed, "the time begins when all is decoded"


def test_back_pressure() -> None:
    system = fragile()
    engine = Engine(system, slots=2, queue=0.5)
    stream, audio = engine.stream(), say([1, 2, 3, 4, 5, 6])
    taken = stream.push(audio, 8000, timeout=0)
    assert taken == 4000 and stream.push(audio[taken:], 8000, timeout=0) == 0
    assert stream.accepted == 0.5
    engine.step()
    more = stream.push(audio[taken:], 8000, timeout=0)
    assert more == system.chunk_samples
    assert stream.push(audio[taken + more :], 8000) == len(audio) - taken - more, "the caller decodes where there is no worker"
    assert stream.finish().text == text_of([1, 2, 3, 4, 5, 6])
    small = Engine(system, slots=1, queue=0.0).stream()
    assert small.push(audio, 8000, timeout=0) == system.chunk_samples, "a chunk at least"
    for rate in (16000, 44100, 48000):
        resampled = engine.stream()
        fast = say([1, 2, 3, 4, 5, 6], rate)
        taken = resampled.push(fast, rate, timeout=0)
        assert 0.5 * rate <= taken < 0.75 * rate, "what the resampler holds back is beyond the queue"
        assert resampled.push(fast[taken:], rate) == len(fast) - taken
        assert resampled.finish().text == text_of([1, 2, 3, 4, 5, 6])


def test_nobody_waits_for_less_than_nothing() -> None:
    engine = Engine(talkative_system("speech_reallm"), slots=1)
    stream, found = engine.stream(), []
    stream.push(noise(1, engine.system.chunk_samples + 100), 8000)
    stream.finish_soon()
    while engine.step():
        found.append((stream.waiting, stream.is_final))
    assert min(found)[0] == 0.0 and (0.0, False) in found, "while silence is decoded at the end"


def test_phrases_with_unknown_characters_are_refused_and_cost_no_slot_and_no_neighbour() -> None:
    system, audio = talkative_system("speech_reallm"), noise(7, 3000)
    expected = alone(system, audio, phrases=["up xo"], phrase_bonus=40.0)
    engine = Engine(system, slots=2)
    neighbour = engine.stream(phrases=["up xo"], phrase_bonus=40.0)
    neighbour.push(audio[:1500], 8000)
    engine.step()
    said = r"^phrase 'Up': 'U' \(U\+0055 LATIN CAPITAL LETTER U\) in 'Up' not known to"
    for ask in (engine.stream, engine.stream_soon):
        with pytest.raises(InputError, match=said):
            ask(phrases=["up", "Up"])  # type: ignore[operator]
        assert engine.active == 1 and not engine._joining
    engine.stream(phrases=["up"]).close()
    neighbour.push(audio[1500:], 8000)
    found = neighbour.finish()
    assert (found.text, found.token_ids) == (expected.text, expected.token_ids)

    async def ask_in_asyncio() -> None:
        with Engine(system, slots=1) as started:
            with pytest.raises(InputError, match=said):
                await open_stream(started, phrases=["Up"])
            (await open_stream(started, phrases=["up"])).close()

    asyncio.run(ask_in_asyncio())
