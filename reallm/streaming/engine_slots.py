"""Which slot a new stream gets. Slots lie in groups that are decoded together: streams whose chunks are full at a time belong in one.

A live stream brings a chunk as often as a chunk lasts, and always at the same point of that time: its *phase*. It is taken to be that of
the moment when the stream joins, as if it began to push then; of one that begins later it is another one, which costs speed alone.
Streams at random phases in a group would have a step of their own each, in which the other rows rest; streams of nearly one phase are
ready in one step, or wait little for it. So each group has a phase of its own, and a new stream goes to the nearest one with a free slot.
The phases are those of van der Corput, 0, 1/2, 1/4, 3/4, 1/8 …, of which any number that is in use spreads evenly over the chunk.

Groups come into use in this order, while more than half of the slots in use are taken: a few streams, and those that bring recordings as
fast as they are taken, share few groups, whose steps then have few rows that rest.
"""

from collections import deque


class FreeSlots:
    """The slots that no stream holds.

    Args:
        slots: how many there are.
        group: G, of a group: slot n is of group n // G, and the last group may have fewer.
    """

    def __init__(self, slots: int, group: int) -> None:
        self._slots, self._group = slots, group
        self._free = [deque(range(first, min(first + group, slots))) for first in range(0, slots, group)]
        self._phases = [_van_der_corput(number) for number in range(len(self._free))]
        self._count = slots

    def __len__(self) -> int:
        return self._count

    def take(self, phase: float) -> int:
        """A slot for a stream of this phase, 0 to 1 of a chunk. The caller knows that one is free."""
        taken = self._slots - self._count
        in_use = self._free[: 1 + 2 * taken // self._group]
        near = [number for number, free in enumerate(in_use) if free]
        slot = self._free[min(near, key=lambda number: _distance(phase, self._phases[number]))].popleft()
        self._count -= 1
        return slot

    def give_back(self, slot: int) -> None:
        """The slot is free again."""
        self._free[slot // self._group].append(slot)
        self._count += 1


def _van_der_corput(number: int) -> float:
    """The binary digits of ``number`` behind the point, in reverse (van der Corput 1935)."""
    digits = f"{number:b}"
    return int(digits[::-1], 2) / (1 << len(digits))


def _distance(a: float, b: float) -> float:
    """Of two phases, on the circle that they lie on."""
    apart = abs(a - b) % 1
    return min(apart, 1 - apart)
