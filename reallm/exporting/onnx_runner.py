#!/usr/bin/env python3
"""Streams audio through ONNX programs of ``reallm export --format onnx`` with numpy and onnxruntime alone: what a client has to do.

    python onnx_runner.py PROGRAMS recording.wav      # 16-bit, one channel, at the model's rate

One stream; the programs take B rows, of which each is one. ``programs.json`` has all names, shapes and numbers.
"""

import json
import sys
import wave
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class Program:
    """One of the programs, and its states of one stream."""

    def __init__(self, folder: Path, interface: dict[str, Any]) -> None:
        self._session = onnxruntime.InferenceSession(folder / interface["file"], providers=["CPUExecutionProvider"])
        self._outputs = [output["name"] for output in interface["outputs"]]
        self._states = interface["states"]
        self.begin()

    def begin(self) -> None:
        """A new stream."""
        self.state = {
            one["name"]: np.broadcast_to(np.array(one["initial"], one["dtype"]), [1, *one["shape"][1:]]).copy() for one in self._states
        }

    def __call__(self, **inputs: Any) -> list[Any]:
        """The outputs of one step."""
        names = self._outputs + [one["next"] for one in self._states]
        found = self._session.run(names, {**inputs, **self.state})
        self.state = dict(zip(self.state, found[len(self._outputs) :], strict=True))
        return found[: len(self._outputs)]


class Stream:
    """Audio in pieces of any size, text out.

    Args:
        folder: of the programs.
        delay: token periods that answers wait, of a model that was trained for several.
    """

    def __init__(self, folder: Path | str, delay: int | None = None) -> None:
        self.about = json.loads((Path(folder) / "programs.json").read_text(encoding="utf-8"))
        self._programs = {name: Program(Path(folder), interface) for name, interface in self.about["programs"].items()}
        self._choice = {}
        if "delay" in self.about:
            self._choice["delay"] = np.array([self.about["delay"]["default"] if delay is None else delay])
        self._queue, self._samples = np.zeros(0, np.float32), 0
        self._label = self.about["search"]["blank_id"]  # of the last frame, of CTC
        self.token_ids: list[int] = []

    @property
    def text(self) -> str:
        """What was said so far."""
        pieces = [self.about["tokens"][token_id] for token_id in self.token_ids]
        return b"".join(p.encode() if isinstance(p, str) else bytes(p) for p in pieces).decode(errors="replace").strip(" ")

    def push(self, samples: Any) -> str:
        """Float samples (S,) in [-1, 1] at the model's rate → the text so far."""
        self._queue = np.concatenate([self._queue, np.asarray(samples, np.float32)])
        self._samples += len(samples)
        while len(self._queue) >= self.about["chunk_samples"]:
            self._hear(self._queue[: self.about["chunk_samples"]], final=False)
            self._queue = self._queue[self.about["chunk_samples"] :]
        return self.text

    def finish(self) -> str:
        """The text of the whole stream, after the silence that brings out its last word."""
        flush, period = self.about["flush"], self.about["period_samples"]
        periods = -(-self._samples // period) + flush["periods"]
        total = -(-periods // flush["multiple"]) * flush["multiple"] * period
        self.push(np.zeros(total - self._samples))
        self._hear(self._queue, final=True)
        return self.text

    def _hear(self, audio: Any, final: bool) -> None:
        wav = np.zeros((1, self.about["chunk_samples"]), np.float32)
        wav[0, : len(audio)] = audio
        frames, count = self._programs["encoder"](wav=wav, lens=np.array([len(audio)]), final=np.array([final]), **self._choice)
        for frame in frames[0, : count[0]]:
            if self.about["search"]["kind"] == "ctc":
                self._collapse(frame)
            else:
                self._respond(frame)

    def _choose(self, log_probs: Any) -> int:
        log_probs[self.about["search"]["blank_id"]] -= self.about["search"]["blank_penalty"]
        return int(log_probs.argmax())

    def _collapse(self, log_probs: Any) -> None:
        label, previous = self._choose(log_probs), self._label
        self._label = label
        if label not in (previous, self.about["search"]["blank_id"]):
            self.token_ids.append(label)

    def _respond(self, embedding: Any) -> None:
        """All tokens that are answered to one speech embedding; BLANK, or what the policy makes of an answer, asks for the next one."""
        decoder, policy, search = self._programs["decoder"], self._programs["policy"], self.about["search"]
        heard, symbols, active = False, 0, np.array([True])
        while not (heard and policy.state["wants_audio"][0]):
            hears = policy.state["wants_audio"][0]
            heard = heard or hears
            now = embedding if hears else np.zeros_like(embedding)
            (log_probs,) = decoder(embedding=now[None], token=policy.state["token_ids"], active=active)
            output = self._choose(log_probs[0])
            if symbols >= search["max_symbols"]:
                output = search["blank_id"]
            (is_token,) = policy(output=np.array([output]), active=active)
            if is_token[0]:
                self.token_ids.append(output)
                symbols += 1


def main() -> None:
    """Print the text of a recording, as it grows."""
    stream = Stream(sys.argv[1])
    with wave.open(sys.argv[2]) as recording:
        if (recording.getframerate(), recording.getnchannels(), recording.getsampwidth()) != (stream.about["sample_rate"], 1, 2):
            sys.exit(f"{sys.argv[2]}: needs one channel of 16 bits at {stream.about['sample_rate']} Hz")
        audio = np.frombuffer(recording.readframes(recording.getnframes()), np.int16) / 32768
    for start in range(0, len(audio), 1000):
        print(stream.push(audio[start : start + 1000]), end="\r")
    print(stream.finish())


if __name__ == "__main__":
    main()
