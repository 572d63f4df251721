"""A cache of the teachers' outputs for all training batches of a run, in files that are mapped into memory."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memgpt_jax import data, models, parallel
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.data.batch import zeros
from memgpt_jax.data.corpora.sources import expand
from memgpt_jax.data.progress_bar import track
from memgpt_jax.errors import RunError
from memgpt_jax.files import checksums
from memgpt_jax.files.json_files import read_json
from memgpt_jax.files.paths import shown
from memgpt_jax.files.saved_files import replacing_files
from memgpt_jax.training.distillation import IDS, LOG_PROBS, teachers_likeliest
from memgpt_jax.training.own_batches import Batches
from memgpt_jax.training.teachers import initial_teacher_states

KEY = "key.json"
NAME = "teachers"
"""The default folder in a workdir."""


class TaughtBatches:
    """`Batches` with the outputs of the teachers, which are read from a cache."""

    def __init__(self, batches: Batches, folder: Path, number: int):
        """Args: number: of the next batch, counted from the first of the run."""
        self.batches, self.folder, self.number = batches, folder, number
        self.arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in (IDS, LOG_PROBS)}

    def __next__(self) -> data.Batch:
        batch, number = next(self.batches), self.number
        self.number += 1
        found = {IDS: self.arrays[IDS][number].astype(np.int32), LOG_PROBS: np.array(self.arrays[LOG_PROBS][number])}
        return batch._replace(info=batch.info | found)

    def get_state(self) -> Any:
        """The position in the data alone: the number of the next batch follows from the step."""
        return self.batches.get_state()

    def set_state(self, state: Any) -> None:
        """Not possible: the number of the next batch would be unknown."""
        raise ValueError("a position cannot be set once the outputs of teachers are added")


def taught_shapes(config: ExperimentConfig, batch: data.Batch) -> data.Batch:
    """A batch of zeros with the arrays of the teachers, if they are cached."""
    k = config.distill.top_k
    if not config.distill.active or k is None:
        return batch
    shape = batch.inputs["tokens"].shape
    added = zeros({IDS: ((*shape, k), np.int32), LOG_PROBS: ((*shape, k + 1), np.float32)}, {})
    return batch._replace(info=batch.info | added.inputs)


def with_cache(
    config: ExperimentConfig,
    params: tuple[models.Params, ...],
    mesh: jax.sharding.Mesh,
    workdir: Path,
    tokenizer: data.Tokenizer | None,
    batches: Batches,
    done: int,
) -> Batches:
    """The batches of a run with the outputs of its teachers; first, a cache that is missing is made.

    Args:
        config: the experiment.
        params: the parameters of the teachers.
        mesh: the devices, which all processes use together.
        workdir: the folder of the run.
        tokenizer: the tokenizer of the run.
        batches: the batches of `config.data` at the position of the run.
        done: steps that the run has taken.

    Raises:
        RunError: the cache in the folder is of other teachers or batches, or it is damaged.
    """
    distill, accumulated = config.distill, config.optimizer.accumulate_steps
    if not distill.active or distill.top_k is None:
        return batches
    folder = workdir / NAME if distill.cache is None else expand(distill.cache).absolute()
    number = config.training.steps * accumulated
    first = data.train_batches(config.data, config.training, config.seed, tokenizer)
    key = {
        "teachers": list(distill.fingerprints),
        "architectures": list(distill.architectures),
        "data": first.source,
        "carry_state": config.training.carry_state,
        "temperature": distill.temperature,
        "top_k": distill.top_k,
    }
    if not parallel.broadcast_from_main((folder / KEY).exists()):
        _write(config, params, mesh, folder, first, key | {"batches": number})
        parallel.barrier("teachers")
    _check(folder, key, number)
    return TaughtBatches(batches, folder, done * accumulated)


def _check(folder: Path, key: dict[str, Any], number: int) -> None:
    """Raise `RunError` unless the cache has the key and enough batches, and its files are those that were written."""
    try:
        checksums.verify(folder)
        saved = read_json(folder / KEY)
    except ValueError as error:
        raise RunError(
            f"the cache of the teachers is damaged: {error}. Delete {shown(folder)} to make it again"
        ) from None
    changed = [f"  {name}: {saved.get(name)} → {value}" for name, value in key.items() if saved.get(name) != value]
    if saved["batches"] < number:
        changed.append(f"  batches: {saved['batches']} → {number}")
    if changed:
        lines = [f"the cache of the teachers in {shown(folder)} is of another run. Choose another distill.cache, or"]
        raise RunError("\n".join([*lines, "delete this one to make it again. What differs:", *changed]))


def _write(
    config: ExperimentConfig,
    params: tuple[models.Params, ...],
    mesh: jax.sharding.Mesh,
    folder: Path,
    batches: Batches,
    key: dict[str, Any],
) -> None:
    """Run the teachers over the batches and write their outputs; all processes compute, and the main one writes."""
    distill, rows, number = config.distill, config.training.batch_size, key["batches"]
    params = jax.device_put(params, parallel.parameter_shardings(params, mesh))
    split = parallel.state_shardings(jax.eval_shape(lambda: initial_teacher_states(distill, rows)), mesh)
    fresh = jax.jit(lambda: initial_teacher_states(distill, rows), out_shardings=split)()
    everywhere = parallel.replicated(mesh)

    def read(params, states, batch):
        return teachers_likeliest(distill, params, states, batch)

    read = jax.jit(read, out_shardings=(everywhere, split))

    def outputs():
        states = fresh
        for _ in track(range(number), "Reading with the teachers", number):
            batch = parallel.split_rows(next(batches)._replace(info={}), mesh, batch_axis=0)
            found, after = read(params, states, batch)
            states = after if config.training.carry_state else fresh
            yield jax.device_get(found)

    if not parallel.is_main():
        for _ in outputs():
            pass
        return
    dtypes = {IDS: np.min_scalar_type(config.model.vocab_size), LOG_PROBS: np.float32}
    with (
        replacing_files(folder) as new,
        (new / f"{IDS}.npy").open("wb") as ids,
        (new / f"{LOG_PROBS}.npy").open("wb") as log_probs,
    ):
        # Written in sequence: a full disk is an error here, and would end the process in a mapped file.
        for count, found in enumerate(outputs()):
            for name, file, array in ((IDS, ids, found.ids), (LOG_PROBS, log_probs, found.log_probs)):
                array = np.asarray(array).astype(dtypes[name])
                if count == 0:
                    header = {"descr": array.dtype.str, "fortran_order": False, "shape": (number, *array.shape)}
                    np.lib.format.write_array_header_1_0(file, header)
                file.write(array.tobytes())
        (new / KEY).write_text(json.dumps(key), encoding="utf-8")
