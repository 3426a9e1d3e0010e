"""Parts of tables of layers: shapes, errors, shares of roles."""

from collections.abc import Sequence

from studio import core
from studio.cli.console import Console


def show_shares(choices: Sequence[core.Choice], console: Console) -> None:
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


def error_text(error: float) -> str:
    """A relative error; equal where there is none."""
    return "-" if not error else f"{error:.4f}" if error >= 5e-5 else f"{error:.1e}"


def layer_row(result: core.LayerResult) -> tuple[str, ...]:
    """A result of a layer as cells."""
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


def shape_text(shape: Sequence[int]) -> str:
    """A shape as people write it."""
    return " x ".join(f"{size:,}" for size in shape)
