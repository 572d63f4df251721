"""The settings of a pretrained model, kept with the model so that a save writes them back unchanged."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from memgpt_jax.interop.folder import read_recorded, write_json

CONFIG, GENERATION = "config.json", "generation_config.json"


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
    """The JSON files beside the weights, as `model.origin` of a model from `from_pretrained`.

    No computation depends on them, so all origins are equal: a program compiled for a model also serves another model
    with the same config. `to_params`, `from_params` and `(config, params)` do not contain them.
    """

    config: Mapping[str, Any]
    """The values of config.json, without the entry "memgpt"."""
    generation: Mapping[str, Any] | None = None
    """The values of generation_config.json; None: there is none."""

    def __post_init__(self) -> None:
        _ = self.stop_ids  # raises `ValueError` if they are not valid

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Origin)

    def __hash__(self) -> int:
        return hash(Origin)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The ids that end a text, from generation_config.json, else from config.json; () if neither has any."""
        for name, values in ((GENERATION, self.generation), (CONFIG, self.config)):
            found = (values or {}).get("eos_token_id")
            if found is not None:
                ids = found if isinstance(found, list) else [found]
                if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
                    raise ValueError(f"{name}: eos_token_id must be a token id or a list of them, got {found!r}")
                return tuple(ids)
        return ()


def read_origin(folder: Path, values: Mapping[str, Any] | None = None) -> Origin:
    """The origin in a folder. Args: values: the values of its config.json; default: they are read."""
    generation = folder / GENERATION
    return Origin(
        read_recorded(folder / CONFIG) if values is None else values,
        read_recorded(generation) if generation.is_file() else None,
    )


def write_origin(folder: Path, origin: Origin) -> None:
    """Write the origin into a folder, for `read_origin`."""
    write_json(folder / CONFIG, dict(origin.config))
    if origin.generation is not None:
        write_json(folder / GENERATION, dict(origin.generation))
