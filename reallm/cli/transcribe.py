"""``reallm transcribe``: audio files with nothing but the base install, or the microphone."""

import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from reallm.cli._cpu_layers import Compiled, Int8, Threads, use_cpu_layers
from reallm.cli._settings import PhraseBonus, Phrases
from reallm.errors import InputError

PIECE_SECONDS = 0.02  # of audio, pushed at a time


def transcribe(
    files: Annotated[list[Path] | None, typer.Argument(metavar="FILE…", help="Audio of any rate, any format soundfile reads.")] = None,
    model: Annotated[Path | None, typer.Option(metavar="DIR", help="A bundle, or an experiment with one; default: the digits.")] = None,
    delay: Annotated[
        float | None, typer.Option(min=0.0, help="Seconds that words wait, of a model that was trained for several; default: its own.")
    ] = None,
    phrases: Phrases = None,
    phrase_bonus: PhraseBonus = None,
    end_of_speech: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Begin a new line where nothing was said for so long.")
    ] = None,
    int8: Int8 = False,
    compiled: Compiled = False,
    threads: Threads = 1,
    json: Annotated[bool, typer.Option("--json", help="One JSON object a line and file.")] = False,
    srt: Annotated[bool, typer.Option("--srt", help="Subtitles.")] = False,
    ctm: Annotated[
        bool, typer.Option("--ctm", help="NIST's time-marked words; a file is called by its name without folder and suffix.")
    ] = False,
    realtime: Annotated[bool, typer.Option("--realtime", help="Feed at the speed of speech, show words as they are emitted.")] = False,
    mic: Annotated[bool, typer.Option("--mic", help="Listen, until Ctrl-C.")] = False,
) -> None:
    """Transcribe audio files or the microphone.

    A file that cannot be transcribed is reported, the others are transcribed, and the exit code is 2.
    """
    files = files or []
    if json + srt + ctm > 1:
        raise InputError("--json, --srt and --ctm: choose one")
    if bool(files) == mic:
        raise InputError("name audio files or --mic, one of the two")
    if srt and len(files) > 1:
        raise InputError("--srt writes the subtitles of one file: call it once a file")
    if ctm:
        from reallm.cli._formats import refuse_equal_ids

        refuse_equal_ids(files)

    import torch

    from reallm.bundle import load_shared, published
    from reallm.cli._settings import use_delay, use_phrases
    from reallm.protocols import times_known
    from reallm.streaming.offline import recognizer_for
    from reallm.streaming.options import choose

    torch.set_num_threads(threads)
    system: Any = load_shared(model or published())
    use_cpu_layers(system, int8, compiled)
    if delay is not None:
        use_delay(system, delay)
    use_phrases(system, phrases, phrase_bonus)
    options: dict[str, Any] = {"end_of_speech": end_of_speech}
    choose(system, **options)  # before a file is read
    recognizer = recognizer_for(system)
    if (srt or ctm) and not times_known(recognizer.system):
        name = getattr(recognizer.system, "component_name", type(recognizer.system).__name__)
        raise InputError(f"{'--srt' if srt else '--ctm'}: system '{name}' does not know when words were spoken: use plain text or --json")
    plain = not (json or srt or ctm)
    live = sys.stdout if plain else sys.stderr
    if mic:
        return show(listen(recognizer, live, options), json, srt, ctm, alone=True, shown=plain)
    failed = 0
    for file in files:
        try:
            result = transcribe_file(recognizer, file, live if realtime else None, options)
        except InputError as error:
            failed += 1
            sys.stdout.flush()
            print(f"reallm: error: {' '.join(str(error).split())}", file=sys.stderr)
            continue
        show(result, json, srt, ctm, alone=len(files) == 1, shown=plain and realtime)
    if failed:
        raise typer.Exit(2)


def transcribe_file(recognizer: Any, file: Path, live: Any | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """What ``--json`` prints of one file. ``live``: feed it in real time and write text there as it is emitted. ``options``: StreamOptions.

    Of a file that was cut off, or is damaged from some place on, what lies before is transcribed, and a warning printed. So it is of
    a rate below the model's, and of channels that cancel out.

    Raises InputError for a file that is not there, is no audio, is empty, or holds NaN.
    """
    import soundfile

    from reallm.data.channels import ChannelMean
    from reallm.data.lengths import declared_samples, lacks_ogg_end
    from reallm.data.sequential_audio import SequentialAudio

    if file.is_dir():
        raise InputError(f"{file}: a folder: name the files in it, such as {file}/*.wav")
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    stream = recognizer.stream(**options)
    begun = time.perf_counter()
    waited = 0.0
    try:
        with SequentialAudio(file) as audio:
            rate, read, mean = audio.samplerate, 0, ChannelMean()
            claimed = declared_samples(file, audio.frames)
            if rate < (needed := recognizer.system.sample_rate):
                _warn(file, f"{rate} Hz is below the model's {needed} Hz: expect more errors, or record at {needed} Hz and more")
            show_new = _shower(live) if live else None
            for samples in _pieces(audio, max(1, round(PIECE_SECONDS * rate))):
                read += len(samples)
                mean.add(samples)
                stream.accept_waveform(samples, rate)
                if show_new:
                    ahead = max(0.0, begun + stream.accepted - time.perf_counter())
                    time.sleep(ahead)
                    waited += ahead
                    show_new(stream.result())
                elif stream.is_ready:
                    recognizer.decode()
        if not stream.accepted:
            raise InputError("it holds no audio")
        final = stream.finish()
        if show_new:
            show_new(final)
        if read < claimed or lacks_ogg_end(file):
            lack = f"its header claims {claimed / rate:.2f} s" if read < claimed else "the end of its Ogg stream is missing"
            _warn(file, f"{lack}, and {read / rate:.2f} s of it can be read: only those are transcribed")
        if mean.cancels:
            _warn(file, "its channels cancel out in their mean, which is transcribed: give it one of them, or invert one")
    except (soundfile.LibsndfileError, InputError) as error:
        reason = f"not audio that soundfile reads ({error.error_string})" if isinstance(error, soundfile.LibsndfileError) else str(error)
        raise InputError(f"{file}: {reason}") from None
    finally:
        stream.close()
    return _result(recognizer, str(file), options, final, stream.accepted, time.perf_counter() - begun - waited)


def _warn(file: Path, doubt: str) -> None:
    print(f"reallm: warning: {file}: {doubt}", file=sys.stderr, flush=True)


def _pieces(audio: Any, samples: int) -> Iterator[Any]:
    """Pieces (S, channels) of an open file, up to its end or to where it is damaged.

    Raises soundfile's LibsndfileError where not even the first can be read.
    """
    import soundfile

    piece = audio.read(samples, dtype="float32", always_2d=True)
    while len(piece):
        yield piece
        try:
            piece = audio.read(samples, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError:
            return


def listen(recognizer: Any, live: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Transcribe the microphone until Ctrl-C, writing text to ``live`` as it is emitted.

    Raises InputError without the PortAudio library or a microphone, and ModuleNotFoundError without sounddevice.
    """
    import queue

    try:
        import sounddevice
    except OSError as error:
        raise InputError(f"--mic needs the PortAudio library ({error}): install it, on Debian with apt-get install libportaudio2") from None

    pieces: queue.SimpleQueue[Any] = queue.SimpleQueue()
    rate = recognizer.system.sample_rate
    stream = recognizer.stream(**options)
    show_new = _shower(live)
    begun = time.process_time()
    try:
        with sounddevice.InputStream(
            samplerate=rate,
            channels=1,
            dtype="float32",
            blocksize=round(PIECE_SECONDS * rate),
            callback=lambda samples, frames, when, status: pieces.put(samples.copy()),
        ):
            print("listening, Ctrl-C ends", file=sys.stderr)
            while True:
                stream.accept_waveform(pieces.get(), rate)
                show_new(stream.result())
    except sounddevice.PortAudioError as error:
        raise InputError(f"--mic: the microphone cannot be opened ({error}): connect one, or choose it as the system's input") from None
    except KeyboardInterrupt:
        final = stream.finish()
        show_new(final)
    return _result(recognizer, "microphone", options, final, stream.accepted, time.process_time() - begun)


def _shower(live: Any) -> Callable[[Any], None]:
    """Writes what is new in a growing text; a line ends where speech does, and with the text."""
    shown = line = ended = 0  # characters, those before this line, ends of speech

    def show_new(hypothesis: Any) -> None:
        nonlocal shown, line, ended
        for end in [*hypothesis.speech_ends[ended:], None]:
            until = len(hypothesis.text) if end is None else end.characters
            piece = hypothesis.text[shown:until]
            live.write(piece.lstrip() if shown == line else piece)
            shown = max(shown, until)
            if end is not None:
                live.write("\n")
                line, ended = shown, ended + 1
        if hypothesis.is_final and not (ended and shown == line):
            live.write("\n")
        live.flush()

    return show_new


def _result(recognizer: Any, name: str, options: Mapping[str, Any], final: Any, seconds: float, spent: float) -> dict[str, Any]:
    from reallm.metrics.hypotheses import word_to_json
    from reallm.protocols import times_known

    unknown = {} if times_known(recognizer.system) else {"start": None, "end": None}
    segments = {} if options["end_of_speech"] is None else {"segments": _segments(final)}
    return {
        "file": name,
        "text": final.text,
        "words": [{**word_to_json(word), **unknown} for word in final.words],
        **segments,
        "seconds_of_audio": round(seconds, 3),
        "rtf": round(spent / seconds, 4) if seconds else None,
    }


def _segments(final: Any) -> list[dict[str, Any]]:
    """The text from one end of speech to the next: each with the number of words up to its end, and the seconds at which it was known."""
    found, begin = [], 0
    for end in final.speech_ends:
        found.append({"text": final.text[begin : end.characters].strip(), "words_so_far": end.words, "ended_at": round(end.at, 3)})
        begin = end.characters
    if final.text[begin:].strip():
        found.append({"text": final.text[begin:].strip(), "words_so_far": len(final.words), "ended_at": None})
    return found


def show(result: dict[str, Any], json: bool, srt: bool, ctm: bool, alone: bool, shown: bool) -> None:
    """Print a result. ``alone``: there is no other file; ``shown``: its text is on the terminal already."""
    if json:
        import json as serializer

        print(serializer.dumps(result, ensure_ascii=False), flush=True)
    elif srt:
        from reallm.cli._formats import subtitles

        ends = {segment["words_so_far"] for segment in result.get("segments", ())}
        print(subtitles(result["words"], ends), end="", flush=True)
    elif ctm:
        from reallm.cli._formats import time_marked

        print(time_marked(result["file"], result["words"]), end="", flush=True)
    elif not shown:
        for segment in result.get("segments") or [result]:
            print(segment["text"] if alone else f"{result['file']}: {segment['text']}", flush=True)
