"""Audio files that are read once, from the beginning to the end."""

import soundfile


class SequentialAudio(soundfile.SoundFile):
    """A file whose pieces, joined, are the samples of the whole, of whatever size they are.

    soundfile seeks after each read, to where the file stands already. A decoder of MP3 begins anew there, without the bits that
    frames before left for it: what it gives then is not what a read of the whole gives, and libmpg123 complains on stderr.
    """

    def seekable(self) -> bool:
        """False: the next read goes on where the last one ended."""
        return False
