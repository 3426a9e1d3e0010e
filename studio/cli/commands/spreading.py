"""The commands estimate and publish: what many workers take, and where an export goes."""

import argparse
import math

from studio import core
from studio.cli.asked import guided, plan_of, resolved, warn
from studio.cli.console import Console
from studio.cli.following import follow_publication
from studio.cli.rendering.spreading import show_forecasts, show_publication, show_published


def run_estimate(options: argparse.Namespace, console: Console) -> int:
    """Show how long an export takes on so many workers."""
    with guided(options.source, options, console) as model:
        core.check_decodable(model)
        plan = plan_of(options)
        choices = resolved(plan, model, console)
        layout, reader = core.layout_for(options.layout or "", options.reader)
        fitted, refusals = core.fitted(layout, reader, model, choices)
        if refusals:
            core.refuse(model, choices, layout, refusals)
        todo = core.pieces(model, fitted, layout, options.shard_size)
    given = options.core_rate
    quantized, kept = (given, given) if given else core.measured_rates(plan)
    rates = core.Rates(quantized, kept, options.store_rate or math.inf, options.link_rate or math.inf)
    rows = [core.forecast(todo, rates, count, options.threads, options.processors) for count in options.workers]
    show_forecasts(todo, rates, rows, options.price, console)
    return 0


def run_publish(options: argparse.Namespace, console: Console) -> int:
    """Send an export to a hub."""
    quality = core.load_quality(options.quality) if options.quality else None
    how = {"public": options.public, "overwrite": options.overwrite, "base_model": options.base_model}
    job = core.publication(options.target, options.repository, quality=quality, **how)
    if not options.base_model:
        warn(["the model card names no base model: --base-model ORG/NAME does"], console)
    if options.dry_run:
        (found,) = filter(None, core.preview(job))
        show_publication(job, found, console)
        if found.objection:
            raise found.objection
        return 0
    show_published(follow_publication(core.publish(job), console), console)
    return 0
