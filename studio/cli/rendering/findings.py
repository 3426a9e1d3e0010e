"""What the doctor finds and repairs."""

from studio import core
from studio.cli.console import Console


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
