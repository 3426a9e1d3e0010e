"""Checks of an export: what was found before it is written, as lines of a list: good, a warning, or in the way."""

from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from studio import core
from studio.gui.layers.document import Document
from studio.gui.layers.store import KEPT
from studio.gui.shell.faults import for_window
from studio.gui.shell.text import capital, label, set_tone

_SIGNS = {"good": "✓", "warning": "▲", "error": "✕", "": "⋯"}
_TOKENIZERS = ("tokenizer", "tekken", "tiktoken", "vocab", "spiece", "sentencepiece")


@dataclass(frozen=True)
class Check:
    """One line of the checks: good, warning or error, what was found, what to do."""

    tone: str
    text: str
    hint: str = ""


def wrong_place(folder: str, name: str) -> Check | None:
    """Why the two fields name no folder to write."""
    if not folder:
        return Check("error", "No folder is given", "Type the one that the export appears in, or choose it.")
    if wrong := core.wrong_name(name):
        return Check("error", wrong, "The folder of this name is made in the one above.")
    return None


def checks_of(result: object) -> list[Check]:
    """What preparing found: an export, or the error that is in its way."""
    if isinstance(result, core.Export):
        return _checks_of_export(result)
    return [Check("error", str(result), for_window(result.hint))] if isinstance(result, core.StudioError) else []


def checks_of_conversion(
    transcoding: core.Transcoding | None, result: core.Export | core.GgufExport | core.StudioError
) -> list[Check]:
    """What was proved of a conversion, and what is in its way, if anything."""
    proved = _checks_of_proof(transcoding) if transcoding else []
    if isinstance(result, core.StudioError):
        return [*proved, Check("error", str(result), for_window(result.hint))]
    if isinstance(result, core.Export):
        return [*_checks_of_place(result), *proved, *map(_caution, result.cautions), _side_files(result)]
    room = Check("good", f"{core.size_text(result.nbytes)} in one file, and there is room for it")
    return [room, Check("good", "The file appears whole or not at all"), *proved]


def _checks_of_proof(transcoding: core.Transcoding) -> list[Check]:
    """The first sentence counts layers, the others say what is not kept as it is."""
    counts, *others = transcoding.sentences()
    exact = not transcoding.losses and not transcoding.rounded_scales
    whole = [Check("good", "Every weight reads as the number that is stored now, proved to the bit")] if exact else []
    return [Check("good", capital(counts)), *whole, *map(_caution, others)]


def _caution(text: str) -> Check:
    return Check("warning", capital(text))


def _checks_of_place(job: core.Export) -> list[Check]:
    files = core.counted(len(job.shards), "shard")
    found = [
        Check("good", f"{core.size_text(job.nbytes)} in {files}, and there is room for it"),
        Check("good", "The folder can be written; it appears whole or not at all"),
    ]
    if old := job.replaced:
        text = f"Replaces the export that is there: {old.files_text}, {core.size_text(old.nbytes)}"
        found.append(Check("warning", text, "They go once the new one is whole."))
    return found


def _checks_of_export(job: core.Export) -> list[Check]:
    found = _checks_of_place(job)
    found += [Check("good", f"{job.layout.title} stores every format that is used"), _side_files(job)]
    found += map(_caution, (*job.changes, *job.cautions))
    return [*found, *(_claim_check(claim) for claim in job.claims)]


def _side_files(job: core.Export) -> Check:
    names = job.model.side_names
    beside = core.counted(len(names), "file beside the weights is", "files beside the weights are")
    if any(word in name for name in names for word in _TOKENIZERS):
        return Check("good", f"{beside} copied, the tokenizer among them")
    return Check("warning", "There is no tokenizer beside the weights", "Runtimes need one: add it to the folder.")


def _claim_check(claim: core.Claim) -> Check:
    tone = "good" if claim.verdict == "runs" else "warning"
    text = f"{claim.runtime}: {'runs' if tone == 'good' else claim.reason}"
    return Check(tone, text, claim.evidence or for_window(claim.change))


def checks_of_layers(document: Document) -> list[Check]:
    """What is not measured, lost too much, or is kept."""
    store, line = document.store, document.warning_line
    figures = store.figures()
    found = []
    if left := figures.chosen - figures.done:
        text = core.counted(left, "layer is", "layers are")
        found.append(Check("warning", f"{text} not measured yet", "The export quantizes all layers all the same."))
    if above := int((store.rel_err > line).sum()):
        hint = "Close this, press W to select them, and choose a finer format."
        text = core.counted(above, "layer is", "layers are")
        found.append(Check("warning", f"{text} above the warning line of {line:g}", hint))
    elif figures.done:
        found.append(Check("good", f"No layer is above the warning line of {line:g}"))
    found += map(_caution, core.requantized(document.choices))
    if (store.state == KEPT).all():
        found.append(Check("error", "Every layer is kept", "Choose a format first."))
    return found


def line_of(check: Check) -> QWidget:
    """The check as it is shown."""
    made = QWidget()
    columns = QHBoxLayout(made)
    columns.setContentsMargins(0, 0, 0, 0)
    sign = label(_SIGNS[check.tone], "bold")
    sign.setFixedWidth(18)
    set_tone(sign, check.tone)
    text = QVBoxLayout()
    text.setSpacing(0)
    text.addWidget(label(check.text, wrap=True))
    if check.hint:
        text.addWidget(label(check.hint, "muted", wrap=True))
    columns.addWidget(sign, 0, Qt.AlignmentFlag.AlignTop)
    columns.addLayout(text, 1)
    return made
