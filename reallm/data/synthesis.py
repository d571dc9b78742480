"""Speech from espeak-ng: used through ctypes, with the library and voices of the ``espeakng-loader`` wheel."""

import _ctypes
import ctypes
import math
from pathlib import Path

import numpy as np
import soundfile

from reallm.data.corpora.fsdd import DIGITS
from reallm.data.files import atomic_folder
from reallm.errors import InputError, how_to_get

MARKER = "SYNTHETIC"  # a file in a folder of recordings that are not real speech
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029")
VARIANTS = ("m1", "f1", "m2", "f2", "m3", "f3", "m4", "f4", "m5", "f5", "m6", "klatt", "m7")  # 13: no common factor with the accents
DIALECTS = (*ACCENTS, "en-us-nyc", "en-gb-x-gbcwmd")  # all that espeak-ng has of English in Latin letters
INHUMAN = ("robo", "whisper", "demonic", "croak", "tweaky", "anxious", "serious", "announcer", "fast")  # parts of variants' names
RATE, PITCH, RANGE, WORD_GAP = 1, 3, 4, 7  # espeak_PARAMETER
SYNCHRONOUS, CHARS_UTF8 = 2, 1


class Synthesizer:
    """One espeak-ng library; there can only be one in a process, so this is shared by all who ask for it."""

    _instance: "Synthesizer | None" = None

    def __new__(cls) -> "Synthesizer":
        if cls._instance is None:
            instance = super().__new__(cls)
            instance._open()
            cls._instance = instance
        return cls._instance

    def _open(self) -> None:
        try:
            import espeakng_loader
        except ImportError as error:
            raise InputError(f"espeak-ng is not installed: {how_to_get('synth')}") from error
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._pieces: list[np.ndarray] = []
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)

        def collect(samples: "ctypes._Pointer[ctypes.c_short]", count: int, events: object) -> int:
            if samples and count > 0:
                self._pieces.append(np.ctypeslib.as_array(samples, (count,)).copy())
            return 0

        self._callback = callback(collect)  # kept: the library holds no reference
        path = str(Path(espeakng_loader.get_data_path()).parent).encode()
        self.sample_rate: int = self._library.espeak_Initialize(SYNCHRONOUS, 0, path, 0)
        if self.sample_rate <= 0:
            raise InputError("espeak-ng does not start: reinstall espeakng-loader")
        self._library.espeak_SetSynthCallback(self._callback)

    def restart(self) -> None:
        """Be as at the start of a process. What the library has said before changes how it goes on, and it is cleared by nothing else."""
        self._library.espeak_Terminate()
        _ctypes.dlclose(self._library._handle)
        self._open()

    def seed(self, seed: int) -> None:
        """Of what is drawn for breath, by the library and by that of C. ``seed``: from 0 to 2³¹ - 1."""
        self._library.espeak_ng_SetRandSeed(ctypes.c_long(seed))
        ctypes.CDLL(None).srand(seed)

    def speak(
        self, text: str, voice: str, words_per_minute: int = 160, pitch: int = 50, pitch_range: int = 50, word_gap: int = 0
    ) -> np.ndarray:
        """(S,) float32 at ``sample_rate``.

        Args:
            voice: such as ``en-us+f3``.
            pitch, pitch_range: 0 to 99.
            word_gap: silence between words, in units of 10 ms at the usual speed.

        Raises InputError for an unknown voice, and a text without anything to say.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise InputError(f"espeak-ng has no voice '{voice}': one such as en-us+f3 is needed")
        for parameter, value in ((RATE, words_per_minute), (PITCH, pitch), (RANGE, pitch_range), (WORD_GAP, word_gap)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._pieces.clear()
        content = text.encode()
        self._library.espeak_Synth(content, len(content) + 1, 0, 0, 0, CHARS_UTF8, None, None)
        self._library.espeak_Synchronize()
        if not self._pieces:
            raise InputError(f"espeak-ng says nothing for '{text}': give it words")
        return np.concatenate(self._pieces).astype(np.float32) / 32768


def voices(count: int) -> list[str]:
    """The first ``count`` voices, neighbours as different from each other as can be."""
    known = [f"{ACCENTS[i % len(ACCENTS)]}+{VARIANTS[i % len(VARIANTS)]}" for i in range(math.lcm(len(ACCENTS), len(VARIANTS)))]
    if count > len(known):
        raise InputError(f"{count} synthetic voices were asked for: at most {len(known)} can be had")
    return known[:count]


def human_variants() -> list[str]:
    """The names of all variants of a voice that sound like somebody, such as ``f3``. Raises InputError without espeak-ng."""
    Synthesizer()
    import espeakng_loader

    names = sorted(path.name for path in (Path(espeakng_loader.get_data_path()) / "voices" / "!v").iterdir())
    return [name for name in names if " " not in name and not any(part in name.lower() for part in INHUMAN)]


def synthesize_digits(folder: Path, count: int, repeats: int, rate: int) -> Path:
    """Single digits of ``count`` voices, ``repeats`` of each, said at different speed and pitch; nothing is done twice.

    Returns ``folder``/recordings, whose files are named as those of the Free Spoken Digit Dataset; a file ``SYNTHETIC``
    in it tells them apart.
    """
    import soxr

    recordings = folder / "recordings"
    if recordings.is_dir():
        return recordings
    synthesizer = Synthesizer()
    with atomic_folder(recordings) as temporary:
        for number, voice in enumerate(voices(count)):
            name = "espeak" + "".join(c for c in voice if c.isalnum())
            for index in range(repeats):
                rng = np.random.default_rng([number, index])
                speed, pitch, pitch_range = (int(v) for v in (rng.integers(120, 230), rng.integers(20, 80), rng.integers(20, 80)))
                for digit, word in enumerate(DIGITS):
                    samples = synthesizer.speak(word, voice, speed, pitch, pitch_range)
                    resampled = soxr.resample(samples, synthesizer.sample_rate, rate)
                    soundfile.write(temporary / f"{digit}_{name}_{index}.wav", resampled, rate, subtype="PCM_16")
        (temporary / MARKER).write_text("synthesized with espeak-ng: not real speech\n", encoding="utf-8")
    return recordings
