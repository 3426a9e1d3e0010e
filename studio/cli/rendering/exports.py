"""What an export is, claims and warns of, and how it ended."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from studio import core
from studio.cli.console import Console
from studio.cli.rendering.layers import layer_row


def show_claims(found: Sequence[core.Claim], console: Console) -> None:
    """Where an export runs, and by what evidence."""
    console.say("Where it runs:")
    for sentence in core.claim_sentences(found):
        console.say(f"  {sentence}")


def show_changes(sentences: Sequence[str], console: Console) -> None:
    """What an export stores otherwise than the plan says, and why."""
    for sentence in sentences:
        console.log(f"note: {sentence}")
        console.emit("note", message=sentence)


def show_export(job: core.Export, target: str | Path, console: Console, *, dry_run: bool = False) -> None:
    """What an export will write and what its users must know, before it begins; for people only when it will not."""
    shards = [{"name": shard.name, "nbytes": shard.nbytes, "layers": len(shard.choices)} for shard in job.shards]
    console.emit(
        "export",
        target=str(target),
        layout=job.layout.name,
        reader=job.reader,
        nbytes=job.nbytes,
        shards=shards,
        side_files=list(job.model.side_names),
        cautions=job.cautions,
        claims=[asdict(claim) for claim in job.claims],
        replaces={"files": len(old.files), "nbytes": old.nbytes} if (old := job.replaced) else None,
        dry_run=dry_run,
    )
    if old:
        what = f"{old.files_text}, {core.size_text(old.nbytes)}"
        console.log(f"replaces the export at {target}: {what}, go once the new one is whole")
    if dry_run:
        files = ", ".join(f"{shard.name} {core.size_text(shard.nbytes)}" for shard in job.shards)
        console.say(f"\nWould write {core.size_text(job.nbytes)} to {target}: {files}")
        show_claims(job.claims, console)
        show_cautions(job, console)


def show_conversion(transcoding: core.Transcoding, console: Console) -> None:
    """What becomes of the layers, and what that loses."""
    losses = [asdict(loss) for loss in transcoding.losses]
    console.emit("conversion", layers=transcoding.counts(), losses=losses, sentences=transcoding.sentences())
    for sentence in transcoding.sentences():
        console.say(sentence)


def show_cautions(job: core.Export, console: Console) -> None:
    """What users of an export must know before they load it."""
    for sentence in job.cautions:
        console.say(f"Note: {sentence}")


def show_outcome(model: core.Model, outcome: core.Outcome, console: Console, worst: int = 5) -> None:
    """What a run cost: by role and format, and the layers that lost most."""
    rows = [
        (
            row["role"],
            row["format"],
            str(row["layers"]),
            f"{row['count']:,}",
            core.size_text(row["nbytes_in"]),
            core.size_text(row["nbytes_out"]),
            f"{row['rel_err']:.4f}" if row["worst"] else "-",
        )
        for row in outcome.totals
    ]
    columns = ("role", "format", ">layers", ">weights", ">before", ">after", ">rel_err")
    console.table(columns, rows)
    ranked = outcome.worst_layers(worst)
    if ranked:
        console.say("\nLayers that lost most:")
        console.table(
            ("layer", "format", "method", ">rel_err", ">SNR", ">zeroed", ">> 6 sigma"),
            [layer_row(result) for result in ranked],
        )
    console.say(
        f"\n{core.printable(model.name)}: {core.size_text(outcome.nbytes_in)} -> {core.size_text(outcome.nbytes_out)}, "
        f"{outcome.bits_per_weight:.2f} bits per weight, relative error {outcome.rel_err:.4f} "
        f"over {outcome.quantized_count / max(outcome.count, 1):.1%} of the weights"
    )
    if said := outcome.methods_used:
        console.say(said)
    if model.generates and outcome.would_gain:
        console.say(
            "Statistics of what goes into its layers would lower the damage in tokens: "
            f"nvfp4-studio calibrate {model.path}, then --statistics FILE."
        )
