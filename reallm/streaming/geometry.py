"""How windows and strides compose.

An operation makes output n of ``stride`` inputs: its *own period* is the inputs [n·stride, (n+1)·stride). It may look
``look_ahead`` inputs beyond the end of that period::

    inputs    0 1 2 3 | 4 5 6 7 | 8 9 …          stride = 4
    output n  ----0---- ----1---- …
    output 0 may depend on inputs 0 … 3 + look_ahead

There is no limit to the left: what lies in the past is in the state. After :class:`SpeechBrain's filter_analysis
<speechbrain.utils.filter_analysis.FilterProperties>`, reduced to what a causal stream needs.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Geometry:
    """Stride and look-ahead of an operation, both counted in its inputs."""

    stride: int = 1
    look_ahead: int = 0

    def then(self, after: "Geometry") -> "Geometry":
        """The geometry of this operation followed by ``after``.

        Output n of ``after`` waits for its period and look-ahead of intermediate frames, the last of which waits for
        this operation's look-ahead: look_ahead = look_ahead_1 + stride_1 · look_ahead_2.
        """
        return Geometry(self.stride * after.stride, self.look_ahead + self.stride * after.look_ahead)

    def outputs(self, inputs: int) -> int:
        """How many outputs a finished stream of ``inputs`` has: ceil(inputs / stride)."""
        return -(-inputs // self.stride)
