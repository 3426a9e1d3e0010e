"""config.json: the file, read safely."""

from pathlib import Path
from typing import Any

from studio.core.containers.files import is_there
from studio.core.containers.links import check_link
from studio.core.containers.strict_json import read_object

LARGEST_CONFIG = 16 << 20


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json in `folder`, empty where there is none. Raises CheckpointError."""
    path = folder / "config.json"
    if not is_there(path):
        return {}
    check_link(path, folder)
    return read_object(path, LARGEST_CONFIG, constants=True)
