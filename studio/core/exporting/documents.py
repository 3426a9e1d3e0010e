"""The files of an export beside its shards: side files, index, card, manifest, config, digests."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256

from studio.core.containers.files import SourceFile
from studio.core.exporting.contents import MANIFEST, SUMS, sums
from studio.core.exporting.export import Export
from studio.core.exporting.manifest import manifest
from studio.core.exporting.readback import chunks
from studio.core.exporting.staged_folder import StagedFolder
from studio.core.outcome import Outcome
from studio.core.planning.plan import Prediction
from studio.core.reporting.report import model_card
from studio.core.results import LayerResult
from studio.core.statistics.digest import choices_digest

INDEX = "model.safetensors.index.json"
CARD = "README.md"
CONFIG = "config.json"
_JSON = json.JSONEncoder(ensure_ascii=False)


def write_documents(job: Export, staging: StagedFolder, results: Sequence[LayerResult]) -> None:
    """Write all of them; `config.json`, without which no runtime loads a folder, is the last."""
    records = [record for shard in job.shards if (record := staging.record(shard.name))]
    digests = {record.shard: record.sha256 for record in records}

    def write(name: str, chunks: Iterable[bytes | bytearray]) -> None:
        digest = sha256()

        def hashed() -> Iterator[bytes | bytearray]:
            for chunk in chunks:
                digest.update(chunk)
                yield chunk

        staging.write_file(name, hashed())
        digests[name] = digest.hexdigest()

    for name, path in zip(job.model.side_names, job.model.side_files, strict=False):
        with SourceFile(path) as file:
            write(name, (file.read(*piece) for piece in chunks(file.size)))
    for document in job.model.documents:
        write(document.name, [document.content])
    if len(job.shards) > 1:
        write(INDEX, _index(job))
    write(CARD, [_card(job, results)])
    source = {file.path.name: {"nbytes": file.size} for file in job.model.files}
    write(MANIFEST, manifest(job.plan, job.layout, source, records))
    for name, content in job.documents.items():
        if name != CONFIG:
            write(name, [content])
    config = job.documents[CONFIG]
    digests[CONFIG] = sha256(config).hexdigest()
    staging.write_file(SUMS, [sums(digests)])
    staging.write_file(CONFIG, [config])


def _card(job: Export, results: Sequence[LayerResult]) -> bytes:
    outcome = Outcome(results, job.target.name)
    notes = [*job.changes, *job.cautions]
    return model_card(job.model, job.plan, job.layout, outcome, notes, job.claims, job.quality, _told(job))


def _told(job: Export) -> Prediction | None:
    """What the plan says of these weights, whatever becomes of inputs; None where it is of others."""
    told = job.plan.prediction
    weights = (replace(choice, rounds_inputs=False) for choice in job.choices)
    return told if told and told.weights == choices_digest(tuple(weights), job.model) else None


def _index(job: Export) -> Iterator[bytes]:
    """Which tensor lies in which shard, a line each."""
    total = sum(shard.data_nbytes for shard in job.shards)
    yield f'{{\n  "metadata": {{\n    "total_size": {total}\n  }},\n  "weight_map": {{'.encode()
    mark = "\n    "
    for planned in job.shards:
        place = json.dumps(planned.name)
        for name in sorted(planned.tensors(job.model, job.layout)):
            yield f"{mark}{_JSON.encode(name)}: {place}".encode()
            mark = ",\n    "
    yield b"\n  }\n}\n"
