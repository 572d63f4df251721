"""A cache of the teachers' outputs for all training batches of a run, in files that are mapped into memory."""

import contextlib
import json
from collections.abc import Iterator
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
from memgpt_jax.files.locks import file_lock
from memgpt_jax.files.paths import shown
from memgpt_jax.files.saved_files import replacing_files
from memgpt_jax.training.distillation import IDS, LOG_PROBS, teachers_likeliest
from memgpt_jax.training.own_batches import Batches
from memgpt_jax.training.teacher_spans import SPAN_LOG_PROBS, SPAN_TOKENS, SpanReader, spans_of_batches
from memgpt_jax.training.teachers import initial_teacher_states

KEY = "key.json"
NAME = "teachers"
"""The default folder in a workdir."""


class TaughtBatches:
    """`Batches` with the outputs of the teachers, which are read from a cache."""

    def __init__(self, batches: Batches, folder: Path, number: int):
        """Args: number: of the next batch, counted from the first of the run."""
        self.batches, self.folder, self.number = batches, folder, number
        self.arrays = {path.stem: np.load(path, mmap_mode="r") for path in sorted(folder.glob("*.npy"))}

    def __next__(self) -> data.Batch:
        batch, number = next(self.batches), self.number
        self.number += 1
        found = {name: array[number] for name, array in self.arrays.items()}
        whole = {
            name: array.astype(np.int32 if array.dtype.kind == "u" else array.dtype) for name, array in found.items()
        }
        return batch._replace(info=batch.info | whole)

    def get_state(self) -> Any:
        """The position in the data alone: the number of the next batch follows from the step."""
        return self.batches.get_state()

    def set_state(self, state: Any) -> None:
        """Not possible: the number of the next batch would be unknown."""
        raise ValueError("a position cannot be set once the outputs of teachers are added")


def taught_shapes(config: ExperimentConfig, batch: data.Batch) -> data.Batch:
    """A batch of zeros with the arrays of the teachers, if they are cached."""
    k, shape = config.distill.top_k, batch.inputs["tokens"].shape
    if not (config.distill.active and config.distill.cached):
        return batch
    arrays: dict[str, tuple[tuple[int, ...], type]]
    if k is None:
        arrays = {SPAN_TOKENS: (shape, np.int32), SPAN_LOG_PROBS: (shape, np.float32)}
    else:
        arrays = {IDS: ((*shape, k), np.int32), LOG_PROBS: ((*shape, k + 1), np.float32)}
    return batch._replace(info=batch.info | zeros(arrays, {}).inputs)


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
    if not (distill.active and distill.cached):
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
    } | ({"by_spans": True} if distill.by_spans else {})
    with _only_writer(folder):
        if not parallel.broadcast_from_main((folder / KEY).exists()):
            if distill.by_spans:
                assert tokenizer is not None  # the data are texts
                found = _spans(config, params, mesh, tokenizer, first, number)
            else:
                found = _likeliest(config, params, mesh, first, number)
            _write(folder, found, key | {"batches": number})
            parallel.barrier("teachers")
    _check(folder, key, number)
    return TaughtBatches(batches, folder, done * accumulated)


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Another run that shares the cache waits until it is written."""
    if not parallel.is_main():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with file_lock(folder / "lock", wait=True):
        yield


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


Arrays = dict[str, np.ndarray]
"""The outputs of the teachers for one batch."""


def _likeliest(
    config: ExperimentConfig, params: tuple[models.Params, ...], mesh: jax.sharding.Mesh, batches: Batches, number: int
) -> Iterator[Arrays]:
    """The likeliest tokens of each batch; all processes run the teachers together."""
    distill, rows = config.distill, config.training.batch_size
    params = jax.device_put(params, parallel.parameter_shardings(params, mesh))
    split = parallel.state_shardings(jax.eval_shape(lambda: initial_teacher_states(distill, rows)), mesh)
    fresh = jax.jit(lambda: initial_teacher_states(distill, rows), out_shardings=split)()
    everywhere = parallel.replicated(mesh)

    def read(params: Any, states: Any, batch: Any):
        return teachers_likeliest(distill, params, states, batch)

    read, states = jax.jit(read, out_shardings=(everywhere, split)), fresh
    dtype = np.min_scalar_type(config.model.vocab_size)
    for _ in range(number):
        batch = parallel.split_rows(next(batches)._replace(info={}), mesh, batch_axis=0)
        found, after = read(params, states, batch)
        states = after if config.training.carry_state else fresh
        found = jax.device_get(found)
        yield {IDS: np.asarray(found.ids).astype(dtype), LOG_PROBS: np.asarray(found.log_probs)}


def _spans(
    config: ExperimentConfig,
    params: tuple[models.Params, ...],
    mesh: jax.sharding.Mesh,
    tokenizer: data.Tokenizer,
    batches: Batches,
    number: int,
) -> Iterator[Arrays]:
    """The spans of each batch; all processes run the teachers together."""
    params = jax.device_put(params, parallel.parameter_shardings(params, mesh))
    others = [data.load_tokenizer(source) for source in config.distill.teachers]
    return spans_of_batches(SpanReader(config, params, tokenizer, others), batches, number)


def _write(folder: Path, found: Iterator[Arrays], key: dict[str, Any]) -> None:
    """Write the outputs of the teachers; all processes compute them, and the main one writes."""
    found = iter(track(found, "Reading with the teachers", key["batches"]))
    if not parallel.is_main():
        for _ in found:
            pass
        return
    with replacing_files(folder) as new, contextlib.ExitStack() as files:
        # Written in sequence: a full disk is an error here, and would end the process in a mapped file.
        opened: dict[str, Any] = {}
        for arrays in found:
            for name, array in arrays.items():
                if name not in opened:
                    opened[name] = files.enter_context((new / f"{name}.npy").open("wb"))
                    shape = (key["batches"], *array.shape)
                    header = {"descr": array.dtype.str, "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_1_0(opened[name], header)
                opened[name].write(array.tobytes())
        files.close()  # before their checksums
        (new / KEY).write_text(json.dumps(key), encoding="utf-8")
