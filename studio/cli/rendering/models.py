"""What a checkpoint holds, and what computes."""

from studio import core
from studio.cli.console import Console
from studio.cli.rendering.layers import shape_text, show_shares


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
            shape_text(layer.shape),
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
        show_shares(core.resolve(core.preset("linear"), model), console)
        console.say("\nNext: nvfp4-studio measure SRC shows what each layer loses; plan SRC what would be done.")
    row = {"family": model.family.name, "known": model.known}
    console.emit("model", name=model.name, architecture=model.architecture, quantized_by=model.quantized_by, **row)


def show_backend(started: core.Engine, console: Console) -> None:
    """What computes."""
    console.log(f"backend: {started.backend.title}")
    console.emit("backend", name=started.backend.name, title=started.backend.title)
