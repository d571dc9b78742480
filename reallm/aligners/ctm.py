"""Word times from a CTM file (NIST sclite), made by whatever aligner the user trusts, carried onto our tokens."""

from pathlib import Path

from reallm import fingerprints
from reallm.aligners.word_times import TimedWord, WordTimesAligner
from reallm.errors import InputError
from reallm.registry import register


@register("aligner", "ctm")
class CTMAligner(WordTimesAligner):
    """Alignments read from a CTM file with the lines ``utterance channel start duration word [confidence]``.

    Args:
        path: the file; times in seconds from the utterance's start; lines that begin with ``;;`` are comments.

    Raises InputError for a missing file or a line that is not CTM.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self.source = self.path.name
        self._utterances = read_ctm(self.path)

    @classmethod
    def tiny(cls, folder: Path | None = None) -> "CTMAligner":
        """Three words of one utterance ``utt``, stored in ``folder`` (default: one that goes with the process)."""
        from reallm.tokenizers.character import process_folder

        path = (folder or process_folder()) / "tiny.ctm"
        path.write_text(";; three words\nutt 1 0.10 0.30 the 0.9\nutt 1 0.45 0.25 lazy\nutt 1 0.80 0.15 dog\n", encoding="utf-8")
        return cls(path)

    def backend_version(self) -> tuple[str, str]:
        """What is stored beside the alignments: "ctm" and the begin of the file's sha256."""
        return "ctm", fingerprints.of_file(self.path)[:16]

    def words_of(self, utterance: str) -> list[TimedWord] | None:
        """The lines of an utterance."""
        return self._utterances.get(utterance)


def read_ctm(path: Path) -> dict[str, list[TimedWord]]:
    """The words of each utterance, sorted by start. Raises InputError that names the line."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as a CTM file ({error}): name a text file") from None
    utterances: dict[str, list[TimedWord]] = {}
    channels: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        fields = line.split()
        if not fields or line.startswith(";;"):
            continue
        try:
            utterance, channel, start, duration, word = fields[:5]
            begin, length, confidence = float(start), float(duration), float(fields[5]) if len(fields) > 5 else 1.0
            if not (begin >= 0 and length >= 0 and 0 <= confidence <= 1):
                raise ValueError
        except ValueError:
            raise InputError(f"{path}:{number}: {line!r} is not 'utterance channel start duration word [confidence]': correct it") from None
        if channels.setdefault(utterance, channel) != channel:
            raise InputError(f"{path}:{number}: utterance '{utterance}' has the channels {channels[utterance]} and {channel}: keep one")
        utterances.setdefault(utterance, []).append((begin, begin + length, word, max(confidence, 1e-10)))
    if not utterances:
        raise InputError(f"{path} holds no words: name a CTM file")
    return {utterance: sorted(words, key=lambda w: w[0]) for utterance, words in utterances.items()}
