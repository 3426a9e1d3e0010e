"""Judges a row of the table: exports its checkpoint to every column, loads the exports and compares logits."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.architectures.decoding import decoded_source, quantized_share, write_decoded
from tests.architectures.exporting import error_of, quantize
from tests.architectures.others import OTHERS
from tests.architectures.verdicts import (
    AS_SOURCE,
    BROKEN,
    CAUTIONED,
    COLUMNS,
    FAILED,
    HARNESS,
    LOAD,
    LOST,
    ONLY_DEQUANTIZED,
    REFUSED,
    REQUANTIZED,
    RIGHT,
    RUN,
    WRONG,
    Row,
    Verdict,
)
from tests.runtimes.worker import RuntimeFailedError, Worker

_TOLERANCE = {"mlx": 5e-3, "compressed-tensors": 2e-2}
_REQUANTIZED = 0.15
_ACROSS = 2e-2
"""What two runtimes may differ by that read the same weights."""
_LARGEST_ERROR = 0.2
_BUILDERS = (
    "dense",
    "mixtures",
    "recurrent",
    "multimodal",
    "rows",
    "variants",
    "hub_config",
    "others",
    "shrinking",
    "building",
    "run_mlx",
    "run_transformers",
)

Answer = dict[str, Any]


class Judge:
    """Judges rows with one process of each runtime and one of the program; close it at the end."""

    def __init__(self, folder: Path, number: int = 0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._mlx = Worker("tests.architectures.run_mlx", folder / f"mlx-{number}.log")
        self._torch = Worker("tests.architectures.run_transformers", folder / f"transformers-{number}.log")
        self._studio = Worker("tests.architectures.run_studio", folder / f"studio-{number}.log")

    def close(self) -> None:
        """End the processes."""
        for worker in (self._mlx, self._torch, self._studio):
            worker.close()

    def judge(self, name: str, columns: Sequence[str]) -> Row:
        """Judge a row in `columns`; its checkpoint is built, and run in both runtimes, when that is not done yet."""
        place = self._folder / "rows" / name
        try:
            self._prepare(name, place)
        except Exception as error:  # a row must not cost the others
            return Row(name, {}, dict.fromkeys(columns, Verdict(HARNESS, _sentence(error))))
        baseline = json.loads((place / "baseline.json").read_text(encoding="utf-8"))
        return Row(name, baseline, {column: self._guarded(place, baseline, column) for column in columns})

    def _guarded(self, place: Path, baseline: Answer, column: str) -> Verdict:
        try:
            return self._verdict(place, baseline, column)
        except Exception as error:  # nor a column
            return Verdict(HARNESS, _sentence(error))

    def _prepare(self, name: str, place: Path) -> None:
        stamp = place / "built-by"
        if stamp.exists() and stamp.read_text(encoding="utf-8") == _recipe():
            return
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        self._torch.ask("build", name=name, folder=place)
        (place / "baseline.json").write_text(json.dumps(self._baseline(place), indent=1), encoding="utf-8")
        stamp.write_text(_recipe(), encoding="utf-8")

    def _baseline(self, place: Path) -> Answer:
        if place.name in OTHERS:
            return {"torch": {}}
        found: Answer = {"torch": _answer(self._torch, "dense_logits", place / "hub", place / "torch.npy")}
        for form in ("hub", "saved"):
            file = place / f"mlx-{form}.npy"
            found[form] = _answer(self._mlx, "logits", place / form, file)
            if "error" not in found[form] and "error" not in found["torch"]:
                found[form]["distance"] = _distance(np.load(file), np.load(place / "torch.npy"))
        return found

    def _verdict(self, place: Path, baseline: Answer, column: str) -> Verdict:
        layout, row = COLUMNS[column]
        stock = baseline["hub" if layout == "mlx" else "torch"]
        if "error" in stock and layout != "mlx":
            return Verdict(BROKEN, stock["error"])
        source, export = place / ("saved" if column == "as-saved" else "hub"), place / column
        code, printed = quantize(self._studio, source, export, layout, row)
        if code:
            return Verdict(REFUSED if code == 2 else FAILED, error_of(printed).replace(f"{source}/", ""))
        try:
            if "error" in stock:
                return self._without_baseline(place, source, export, column, stock["error"])
            verdict = self._compared(place, source, export, column, baseline)
            share = quantized_share(source, export)
        finally:
            shutil.rmtree(export)
            shutil.rmtree(place / f"decoded-{column}", ignore_errors=True)
        verdict = replace(verdict, share=share)
        if verdict.verdict == ONLY_DEQUANTIZED and "dequantize=True" in printed:
            return replace(verdict, verdict=CAUTIONED)
        if column == "as-saved" and not verdict.fine and _misread(baseline):
            return replace(verdict, verdict=AS_SOURCE)
        if column == "mlx-int4" and verdict.verdict == WRONG and verdict.reason == "kv_b_proj" and verdict.distance:
            return replace(verdict, verdict=REQUANTIZED if verdict.distance < _REQUANTIZED else WRONG)
        return verdict

    def _compared(self, place: Path, source: Path, export: Path, column: str, baseline: Answer) -> Verdict:
        tensors, errors = decoded_source(source, export)
        if far := [name for name, error in errors.items() if not error < _LARGEST_ERROR]:
            return Verdict(WRONG, f"{far[0]} decodes to something else, relative error {errors[far[0]]:.2f}")
        decoded = place / f"decoded-{column}"
        write_decoded(place / "hub", decoded, tensors)
        if place.name in OTHERS:
            return self._by_weights(decoded, export)
        if COLUMNS[column][0] == "mlx":
            is_split = any(name.endswith("kv_b_proj") for name in errors)
            trust = COLUMNS[column][1] == "nvfp4-3t"
            return self._in_mlx(decoded, export, "kv_b_proj" if is_split else "", trust)
        return self._in_transformers(decoded, export, baseline["torch"])

    def _without_baseline(self, place: Path, source: Path, export: Path, column: str, error: str) -> Verdict:
        """mlx-lm may load the export where it can not load the source: then transformers says what is right."""
        tensors, _ = decoded_source(source, export)
        decoded = place / f"decoded-{column}"
        write_decoded(place / "hub", decoded, tensors)
        expected, found = decoded / "expected.npy", decoded / "found.npy"
        there = _answer(self._torch, "dense_logits", decoded, expected)
        here = _answer(self._mlx, "logits", export, found, trust=COLUMNS[column][1] == "nvfp4-3t")
        if "error" in there or "error" in here:
            return Verdict(BROKEN, error)
        distance = _distance(np.load(found), np.load(expected))
        right = distance <= _ACROSS
        share = quantized_share(source, export)
        return Verdict(RIGHT, "as in transformers", distance, share) if right else Verdict(BROKEN, error, distance)

    def _in_mlx(self, decoded: Path, export: Path, reason: str, trust: bool) -> Verdict:
        expected, found = decoded / "expected.npy", decoded / "found.npy"
        self._mlx.ask("logits", folder=decoded, file=expected)
        answer = _answer(self._mlx, "logits", export, found, trust=trust)
        return _judged(answer, found, expected, _TOLERANCE["mlx"], reason)

    def _in_transformers(self, decoded: Path, export: Path, stock: Answer) -> Verdict:
        expected = decoded / "expected.npy"
        self._torch.ask("dense_logits", folder=decoded, file=expected, rounded=True)
        return _first_fine(
            self._loaded(export, expected, decoded / f"found-{how}.npy", stock, dequantize=how) for how in (False, True)
        )

    def _by_weights(self, decoded: Path, export: Path) -> Verdict:
        """The verdict by the parameters of the loaded model; not all types run on text alone."""
        return _first_fine(self._weights(decoded, export, dequantize=how) for how in (False, True))

    def _weights(self, decoded: Path, export: Path, dequantize: bool) -> Verdict:
        try:
            answer = self._torch.ask("weights", folder=export, decoded=decoded, dequantize=dequantize)
        except (RuntimeFailedError, AssertionError) as error:
            return Verdict(LOAD, _sentence(error))
        if answer["broken"]:
            return Verdict(BROKEN, f"as saved it lacks {answer['broken'][0]}")
        if answer["lost"]:
            return Verdict(LOST, f"{len(answer['lost'])} names, {answer['lost'][0]}")
        right = answer["distance"] <= _TOLERANCE["compressed-tensors"]
        return Verdict(RIGHT if right else WRONG, "" if right else answer["farthest"], answer["distance"])

    def _loaded(self, export: Path, expected: Path, found: Path, stock: Answer, dequantize: bool) -> Verdict:
        answer = _answer(self._torch, "logits", export, found, dequantize=dequantize)
        verdict = _judged(answer, found, expected, _TOLERANCE["compressed-tensors"], "")
        lost = [name for key, names in answer.items() if key != "error" for name in names if name not in stock[key]]
        if verdict.fine and lost:
            return replace(verdict, verdict=LOST, reason=f"{len(lost)} names, {lost[0]}")
        return verdict


def _first_fine(tried: Iterable[Verdict]) -> Verdict:
    """Of an export as it is loaded by default, and decoded at once."""
    plain, *others = _until_fine(tried)
    if others and others[0].fine:
        return replace(others[0], verdict=ONLY_DEQUANTIZED, reason=f"{plain.verdict}: {plain.reason}")
    return plain


def _until_fine(tried: Iterable[Verdict]) -> Iterator[Verdict]:
    for verdict in tried:
        yield verdict
        if verdict.fine:
            return


def _judged(answer: Answer, found: Path, expected: Path, tolerance: float, reason: str) -> Verdict:
    if "error" in answer:
        return Verdict(RUN if answer["error"].startswith("RunFailedError") else LOAD, answer["error"])
    distance = _distance(np.load(found), np.load(expected))
    return Verdict(RIGHT if distance <= tolerance else WRONG, "" if distance <= tolerance else reason, distance)


def _distance(found: Any, expected: Any) -> float:
    """Relative L2 distance; infinite when a number is none."""
    distance = float(np.linalg.norm(found - expected) / np.linalg.norm(expected))
    return distance if np.isfinite(distance) else float("inf")


def _misread(baseline: Answer) -> bool:
    """True when stock mlx-lm reads the checkpoint otherwise by the config.json of transformers 5 than by the hub's."""
    saved, hub = baseline["saved"], baseline["hub"]
    return "error" in saved or saved.get("distance", 0) > hub.get("distance", 0) + _TOLERANCE["mlx"]


def _answer(worker: Worker, do: str, folder: Path, file: Path, **how: bool) -> Answer:
    """The answer of a runtime, or its error; a crash is one."""
    try:
        return worker.ask(do, folder=folder, file=file, **how)
    except (RuntimeFailedError, AssertionError) as error:
        return {"error": _sentence(error)}


def _sentence(error: Exception) -> str:
    """One line; what a runtime raised carries its own type."""
    kind = "" if isinstance(error, RuntimeFailedError) else f"{type(error).__name__}: "
    return (kind + " ".join(str(error).split()))[:400]


def _recipe() -> str:
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join((folder / f"{name}.py").read_bytes() for name in _BUILDERS)).hexdigest()
