"""Tables and sentences about models, plans and outcomes, for the command line."""

import heapq
import math
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from studio import core
from studio.console import Console


def show_inspection(model: core.Model, console: Console) -> None:
    """What a checkpoint holds: a line per layer and the totals."""
    for layer in model.layers:
        console.emit(
            "layer",
            name=layer.name,
            role=layer.role,
            block=layer.block,
            dtype=layer.tensor.dtype,
            stored=layer.source.meaning,
            bits=layer.source.bits,
            shape=list(layer.shape),
            nbytes=layer.nbytes,
            note=layer.obstacle,
        )
    rows = [
        (
            core.printable(layer.name),
            layer.role,
            core.printable(layer.source.meaning),
            _shape(layer.shape),
            core.size_text(layer.nbytes),
            core.printable(layer.obstacle),
        )
        for layer in model.layers
    ]
    console.table(("layer", "role", "stored as", ">shape", ">size", "note"), rows)
    kind = core.printable(model.architecture) or "no architecture named"
    counts = f"{core.counted(len(model.layers), 'layer')}, {core.counted(model.count, 'weight')}"
    facts = f"{counts}, {core.size_text(model.nbytes)}"
    console.say(f"\n{core.printable(model.name)}: {kind}, {facts}")
    console.say(model.read_by)
    if model.quantized_by:
        console.say(f"It is already quantized: {model.quantized_by}")
        if core.is_exported(model):
            console.say(
                "\nNext: nvfp4-studio verify DIR --source SRC proves it against the checkpoint it was made from."
            )
    else:
        console.say("\nWhat the preset linear quantizes:")
        _show_shares(core.resolve(core.preset("linear"), model), console)
        console.say("\nNext: nvfp4-studio measure SRC shows what each layer loses; plan SRC what would be done.")
    row = {"family": model.family.name, "known": model.known}
    console.emit("model", name=model.name, architecture=model.architecture, quantized_by=model.quantized_by, **row)


def _show_shares(choices: Sequence[core.Choice], console: Console) -> None:
    """What share of the bytes of every role is quantized."""
    rows = []
    for role in core.ROLES:
        mine = [choice for choice in choices if choice.layer.role == role]
        total = sum(choice.layer.nbytes for choice in mine)
        done = sum(choice.layer.nbytes for choice in mine if choice.recipe)
        if total:
            rows.append((role, f"{len(mine):,}", core.size_text(total), f"{done / total:.1%}"))
            console.emit("role", role=role, layers=len(mine), nbytes=total, quantized=done / total)
    console.table(("role", ">layers", ">before", ">quantized"), rows)


def show_claims(found: Sequence[core.Claim], console: Console) -> None:
    """Where an export runs, and by what evidence."""
    console.say("Where it runs:")
    for sentence in core.claim_sentences(found):
        console.say(f"  {sentence}")


def show_findings(examination: core.Examination, console: Console) -> None:
    """What the doctor found, worst first: where, by what evidence, whom it stops, what helps."""
    for found in examination.findings:
        console.emit("finding", **found.to_json())
        console.say(f"{found.severity}: {found.kind}: {found.what}")
        repair = f"{found.repair}, by --fix OUT{' with --source' if found.wants_source else ''}" if found.repair else ""
        facts = {"where": found.places, "evidence": found.evidence, "fails": ", ".join(found.fails), "fix": found.fix}
        for name, text in {**facts, "repair": repair}.items():
            if text:
                console.say(f"  {name}: {text}")
    count = core.counted(len(examination.findings), "finding")
    console.say(f"{count}" if examination.findings else "Nothing was found.")
    console.emit("examined", findings=len(examination.findings))


def show_repairs(repaired: core.Repaired, console: Console) -> None:
    """What a repaired copy has that the folder has not, and what is still found in it."""
    for repair in repaired.repairs:
        console.emit("repair", **repair.to_json())
        console.say(f"mended: {repair.kind}: {repair.what}, {core.counted(repair.count, 'place')}")
    for what in repaired.left_out:
        console.log(f"not in the copy: {what}")
    if repaired.target:
        console.say(f"{core.printable(repaired.target, 400)} holds the repaired copy. What is still found there:")
    else:
        console.say("Nothing can be mended for certain; nothing was written. What is found:")
    target = str(repaired.target) if repaired.target else None
    console.emit("repaired", path=target, repairs=len(repaired.repairs), left_out=list(repaired.left_out))
    show_findings(repaired.after, console)


def show_changes(sentences: Sequence[str], console: Console) -> None:
    """What an export stores otherwise than the plan says, and why."""
    for sentence in sentences:
        console.log(f"note: {sentence}")
        console.emit("note", message=sentence)


def show_plan(
    model: core.Model, plan: core.Plan, choices: Sequence[core.Choice], layout: core.Target, console: Console
) -> None:
    """What a plan does: a line per layer, and how much of the model it covers, in the sizes of a layout."""
    for choice in choices:
        said = {"format": choice.format, "nbytes": choice.nbytes, "reason": choice.reason, "lift": choice.layer.lift}
        console.emit("choice", name=choice.layer.name, **said)
    rows = [
        (
            core.printable(c.layer.name),
            c.layer.role,
            _shape(c.layer.shape),
            f"{c.format} x 2**{c.layer.lift}" if c.layer.lift else c.format,
            c.method,
            core.size_text(c.layer.nbytes),
            core.size_text(c.nbytes),
            core.printable(c.reason),
        )
        for c in choices
    ]
    console.table(("layer", "role", ">shape", "format", "method", ">before", ">after", "why"), rows)
    chosen = [choice for choice in choices if choice.recipe]
    before, after = sum(c.layer.nbytes for c in choices), sum(c.nbytes for c in choices)
    why = core.nothing_chosen(choices)
    share = sum(c.layer.count for c in chosen) / max(sum(c.layer.count for c in choices), 1)
    console.say()
    _show_shares(choices, console)
    title = plan.title or plan.name or "custom plan"
    console.say(f"\n{core.printable(title)}")
    console.say(
        f"{len(chosen):,} of {core.counted(len(choices), 'layer')}, {share:.1%} of the weights: "
        f"{core.size_text(before)} becomes {core.size_text(after)} ({core.counted(after, 'byte')})"
    )
    console.say(model.read_by)
    if why:
        console.say(f"Nothing will be quantized: {why}")
    console.emit("plan", **plan.to_json(), nbytes_before=before, nbytes_after=after, layout=layout.name, nothing=why)


def show_budget(planner: core.Planner, mix: core.Mix, console: Console) -> None:
    """What a mix comes to beside single formats, and what is known of its damage."""
    known, count = planner.sensitivity.is_known, planner.decisions.model.count
    rows = [_mix_row(name, found, count) for name, found in [*planner.uniforms(), ("this mix", mix)]]
    console.say()
    console.table(("", ">size", ">bits", ">worst layer", ">KL" if known else ">damage"), [row for _, row in rows])
    console.emit("budget", mixes=[said for said, _ in rows], gap=mix.gap, **planner.sensitivity.to_json())
    if known:
        console.say("\nKL is predicted from short plans that were run on a text; evaluate --plans measures it.")
    else:
        console.say(
            "\nDamage is the squared error of the outputs of layers over their squares, added up; --probe runs short "
            "plans on a text and tells what that means in tokens."
        )
    better = f"at most {mix.gap:.2%} from the best" if mix.gap else "no mix within the budget is better"
    console.say(f"Of {core.counted(len(planner.decisions.items), 'decision')}: {better}, by what is known.")


def _mix_row(name: str, mix: core.Mix, count: int) -> tuple[dict[str, object], tuple[str, ...]]:
    """A mix as JSON values and as a row of a table."""
    bits = 8 * mix.nbytes / max(count, 1)
    said = {"name": name, "nbytes": mix.nbytes, "bits_per_weight": bits, "rel_err": mix.rel_err}
    effect = mix.damage if mix.kl is None else mix.kl
    noise = f" ± {mix.noise:.2g}" if mix.noise else ""
    row = (name, core.size_text(mix.nbytes), f"{bits:.3f}", f"{mix.rel_err:.4f}", f"{effect:.4g}{noise}")
    return {**said, "damage": mix.damage, "kl": mix.kl, "noise": mix.noise}, row


def show_backend(started: core.Engine, console: Console) -> None:
    """What computes."""
    console.log(f"backend: {started.backend.title}")
    console.emit("backend", name=started.backend.name, title=started.backend.title)


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


def show_comparison(found: core.Measured, console: Console) -> None:
    """How far two checkpoints are apart: a line per layer that differs, what only one has, and the totals."""
    compared = found.comparison
    for pair in compared.pairs:
        console.emit("pair", **pair.to_json())
    columns = ("layer", "A", "B", ">bits A", ">bits B", *([">error A"] if found.reference else []), ">error B")
    console.table(columns, [_pair_row(pair, with_a=bool(found.reference)) for pair in compared.pairs])
    for title, names in (("A", compared.only_a), ("B", compared.only_b), ("the source", found.lost)):
        if names:
            console.say(f"only {title} has {core.counted(len(names), 'layer')}: {core.some_of(list(names))}")
    console.say()
    console.table(("", "checkpoint", ">layers", ">size", ">bits", ">error", "stored as"), _side_rows(found))
    for format_, count in found.untaken.items():
        console.say(f"no plan knows {core.printable(format_)}: {core.counted(count, 'layer')} of B kept in its plan")
    same = f"{core.counted(found.equal, 'layer')} the same in both" if found.equal else "no layer is the same in both"
    console.say(f"\n{same}\n{found.sentence()}")
    alone = {"only_a": compared.only_a, "only_b": compared.only_b, "lost": found.lost, "untaken": found.untaken}
    sides = [side.to_json() for side in found.sides]
    console.emit(
        "compared",
        sides=sides,
        equal=found.equal,
        source=found.reference,
        sentence=found.sentence(),
        plan=found.plan.to_json(),
        **alone,
    )


def _pair_row(pair: core.Pair, *, with_a: bool) -> tuple[str, ...]:
    errors = (pair.error_a, pair.error_b) if with_a else (pair.error_b,)
    titles = (core.printable(pair.title_a), core.printable(pair.title_b))
    return core.printable(pair.name), *titles, *(f"{bits:.2f}" for bits in pair.bits), *map(_error_text, errors)


def _error_text(error: float) -> str:
    return "-" if not error else f"{error:.4f}" if error >= 5e-5 else f"{error:.1e}"


def _side_rows(found: core.Measured) -> list[tuple[str, ...]]:
    return [
        (
            letter,
            core.printable(side.name),
            f"{side.layers:,}",
            core.size_text(side.nbytes),
            f"{side.bits:.2f}",
            "" if side.rel_err is None else _error_text(side.rel_err),
            ", ".join(core.printable(name) for name, _ in side.formats[:3]),
        )
        for letter, side in zip("AB", found.sides, strict=True)
    ]


def show_verified(target: Path, outcome: core.Outcome, source: core.Model | None, console: Console) -> None:
    """What verifying found, of an export of ours or of a checkpoint of others."""
    count = core.counted(len(outcome.layers), "layer decodes", "layers decode")
    ours = core.is_ours(target)
    if ours:
        compared = "and its errors are the ones it states" if source else "(--source SRC compares it with its source)"
        console.say(f"{target} is whole: {count} {compared}")
    else:
        _show_foreign(target, count, outcome, source, console)
    told = {"ours": ours, "notes": list(outcome.cautions)}
    console.emit("verified", path=str(target), layers=len(outcome.layers), compared=source is not None, **told)


def _show_foreign(target: Path, count: str, outcome: core.Outcome, source: core.Model | None, console: Console) -> None:
    differ = [layer for layer in outcome.layers if layer.sum_squares and (layer.quantized or layer.sum_error)]
    if source and differ:
        rows = [
            (
                core.printable(r.name),
                core.printable(r.reason or r.format),
                f"{r.bits_per_weight:.2f}",
                _error_text(r.rel_err),
            )
            for r in differ
        ]
        console.table(("layer", "stored as", ">bits", ">rel_err"), rows)
        console.say()
    console.say(f"{target}: {count}; {'; '.join(outcome.cautions)}")
    if source:
        total = core.relative_error(sum(r.sum_error for r in differ), sum(r.sum_squares for r in differ))
        errors = f"{core.counted(len(differ), 'layer differs', 'layers differ')}, relative error {_error_text(total)}"
        console.say(f"Against {core.printable(source.name)}: {errors if differ else 'the same weights, bit by bit'}")
    else:
        console.say("--source SRC compares it with its source")


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
        for row in core.totals(outcome.layers)
    ]
    columns = ("role", "format", ">layers", ">weights", ">before", ">after", ">rel_err")
    console.table(columns, rows)
    ranked = heapq.nlargest(worst, (layer for layer in outcome.layers if layer.quantized), key=lambda r: r.rel_err)
    if ranked:
        console.say("\nLayers that lost most:")
        console.table(
            ("layer", "format", "method", ">rel_err", ">SNR", ">zeroed", ">> 6 sigma"),
            [_layer_row(result) for result in ranked],
        )
    console.say(
        f"\n{core.printable(model.name)}: {core.size_text(outcome.nbytes_in)} -> {core.size_text(outcome.nbytes_out)}, "
        f"{outcome.bits_per_weight:.2f} bits per weight, relative error {outcome.rel_err:.4f} "
        f"over {outcome.quantized_count / max(outcome.count, 1):.1%} of the weights"
    )
    if said := core.methods_used(outcome.layers):
        console.say(said)
    if model.generates and core.would_gain(outcome.layers):
        console.say(
            "Statistics of what goes into its layers would lower the damage in tokens: "
            f"nvfp4-studio calibrate {model.path}, then --statistics FILE."
        )


def show_calibration(found: core.Calibrated, source: Path, console: Console) -> None:
    """What is in a file of statistics, what is not, and what to do with it."""
    console.emit("calibrated", **{**asdict(found), "path": str(found.path)})
    told = f"{core.counted(found.matrices, 'matrix', 'matrices')}, {core.counted(found.tokens, 'token')} of text"
    console.say(
        f"Wrote {found.path}: {told}, {core.size_text(found.nbytes)}, in {found.seconds:.0f} s ({found.runtime})"
    )
    for names, what in (
        (found.idle, "of experts saw no token and will be quantized without statistics; more text reaches more"),
        (found.unseen, "are not in it, since the runtime has them in another form, and will be quantized without it"),
    ):
        if names:
            console.say(f"{core.counted(len(names), 'matrix', 'matrices')} {what}: {core.printable(names[0])} first")
    console.say(
        f"\nNext: nvfp4-studio quantize {shlex.quote(str(source))} DST --statistics {shlex.quote(str(found.path))}"
    )


def show_quality(quality: core.Quality, console: Console) -> None:
    """What an evaluation found: a line per model, the source first."""
    rows = [_quality_row(row) for row in (*([quality.source] if quality.source else []), *quality.models)]
    columns: tuple[str, ...] = (
        "model",
        "format",
        "method",
        ">rel_err",
        ">perplexity",
        ">increase",
        ">KL to source",
        ">predicted",
        ">top-1",
        ">seconds",
    )
    if all(row.predicted is None for row in quality.models):
        place = columns.index(">predicted")
        columns, *rows = [(*cells[:place], *cells[place + 1 :]) for cells in (columns, *rows)]
    console.table(columns, rows)
    text = quality.text
    console.say(
        f"\n{core.printable(text.name)}: {core.counted(text.windows, 'window')} of {text.length:,} tokens, "
        f"{quality.runtime} {quality.version} in float32; ± is one standard error over windows"
    )
    if not quality.source:
        console.say("Without its source only perplexity is known: --against SRC adds KL and agreement.")


def _quality_row(row: core.Evaluated) -> tuple[str, ...]:
    return (
        core.printable(row.name),
        row.format,
        " by ".join(filter(None, (row.method, row.guide))) or "-",
        "-" if row.rel_err is None else f"{row.rel_err:.4f}",
        _noisy(row.perplexity, "%.2f"),
        _noisy(row.increase, "%+.1f", 100, " %"),
        _noisy(row.kl, "%.4f"),
        "-" if row.predicted is None else f"{row.predicted:.4f}",
        _noisy(row.top1, "%.1f", 100, " %"),
        f"{row.seconds:.0f}",
    )


def _noisy(found: core.Estimate | None, form: str, factor: float = 1, unit: str = "") -> str:
    return core.noisy(found, form, factor, unit) if found else "-"


def show_replies(events: Iterable[core.Event], console: Console) -> None:
    """What each side made of a prompt, the first token that is another one in brackets."""
    texts: dict[str, str] = {}
    for event in events:
        match event:
            case core.Loaded(runtime, version, _):
                console.log(f"{runtime} {version}, in float32")
            case core.Token(side, index, token, text, differs):
                console.emit("token", side=side, index=index, token=token, text=text, differs=differs)
                texts[side] = texts.get(side, "") + (f"[{text or 'end'}]" if differs else text)
            case core.ReplyDone(differs_at):
                console.emit("finished", differs_at=differs_at)
                _show_texts(texts, differs_at, console)


def _show_texts(texts: Mapping[str, str], differs_at: int | None, console: Console) -> None:
    for side, text in texts.items():
        console.say(f"{side}:\n{_lines(text)}\n")
    if len(texts) > 1:
        console.say("Both say the same." if differs_at is None else f"They differ from token {differs_at + 1} on.")


def _lines(text: str) -> str:
    """What a model said, its line ends kept, all else that a terminal would take for an order escaped."""
    return "\n".join(core.printable(line, len(line) * 10 + 1) for line in text.split("\n"))


def _layer_row(result: core.LayerResult) -> tuple[str, ...]:
    outliers = result.statistics.outliers if result.statistics else 0
    return (
        core.printable(result.name),
        result.format,
        result.method,
        f"{result.rel_err:.4f}",
        f"{result.snr:.1f} dB",
        f"{result.vanished_share:.2%}",
        f"{outliers:,}",
    )


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(f"{size:,}" for size in shape)


_FATES = {"send": "is sent", "there": "is there already", "replace": "replaces another", "remove": "is removed there"}


def show_publication(job: core.Publication, found: core.Preview, console: Console) -> None:
    """What publishing would do with each file, and whether it may."""
    for row in found.rows:
        console.emit("file", name=row.name, nbytes=row.nbytes, fate=row.fate)
    cells = [(core.printable(row.name), core.size_text(row.nbytes), _FATES[row.fate]) for row in found.rows]
    console.table(("file", ">size", "what happens"), cells)
    sent = [row for row in found.rows if row.fate in ("send", "replace")]
    amount = core.size_text(sum(row.nbytes for row in sent))
    seen = "everybody sees it" if job.public else "private"
    console.say(f"\nWould send {core.counted(len(sent), 'file')}, {amount}, to {job.url} ({seen})")
    for sentence in job.left:
        console.say(f"Stays behind: {sentence}")


def show_published(found: core.Published, console: Console) -> None:
    """Where an export is now."""
    facts = {"commit": found.commit, "private": found.private, "files": found.files, "sent": found.sent}
    console.emit("published", url=found.url, page=found.page, nbytes=found.nbytes, **facts)
    console.emit("finished", exit_code=0)
    seen = "private" if found.private else "for everybody to see"
    told = f"{core.counted(found.files, 'file')}, {core.size_text(found.nbytes)}, {found.sent:,} of them sent now"
    console.say(f"Published {found.page}, {seen}: {told}")
    console.say(f"Every file there was checked, at commit {core.printable(found.commit)}")


def show_forecasts(
    todo: Sequence[core.Piece], rates: core.Rates, rows: Sequence[core.Forecast], price: float, console: Console
) -> None:
    """How time, and what it costs, grow with the number of workers."""
    read = sum(piece.quantized + piece.kept for piece in todo)
    written = sum(piece.written for piece in todo)
    size = f"{core.size_text(read)} in {core.counted(len(todo), 'shard')}, {core.size_text(written)} when done"
    console.say(f"{size}\nRates: {_rates(rates)}\n")
    for row in rows:
        console.emit("forecast", **asdict(row), cost=_hours(row) * price)
    first = rows[0]
    cells = [
        (
            f"{row.workers:,}",
            _duration(row.seconds),
            f"{first.seconds / row.seconds:.3g}",
            f"{row.busy:.0%}",
            f"{_hours(row):,.3g}",
            f"{_hours(row) * price:,.2f}",
            row.bound,
        )
        for row in rows
    ]
    heads = (">workers", ">time", ">times faster", ">computing", ">worker hours", ">cost", "held up by")
    kept = [place for place, head in enumerate(heads) if price or head != ">cost"]
    console.table([heads[i] for i in kept], [[row[i] for i in kept] for row in cells])


def _rates(rates: core.Rates) -> str:
    """The rates in words."""
    told = [f"a thread quantizes {_rate(rates.quantized)} and copies {_rate(rates.kept)}"]
    told += [f"the store gives {_rate(rates.store)}" if math.isfinite(rates.store) else "a store without limit"]
    told += [f"a worker's network {_rate(rates.link)}" if math.isfinite(rates.link) else "networks without limit"]
    return ", ".join(told)


def _rate(nbytes: float) -> str:
    return f"{core.size_text(nbytes)}/s"


def _hours(row: core.Forecast) -> float:
    return row.workers * row.seconds / 3600


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}:{minutes:02}:{seconds:02}"
