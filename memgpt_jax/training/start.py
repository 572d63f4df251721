"""The start of a training run: its checks, and everything that is restored or opened before the first step."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from memgpt_jax import data, models, parallel
from memgpt_jax.checkpoint import Checkpoints, load_run_tokenizer
from memgpt_jax.config.checks import check
from memgpt_jax.config.data import TaskConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.heads import HeadedConfig, StreamHeadConfig
from memgpt_jax.config.model import BaseModelConfig
from memgpt_jax.data.examples.files import ExamplesConfig
from memgpt_jax.errors import RunError, refused
from memgpt_jax.files.paths import shown
from memgpt_jax.memory import resolved
from memgpt_jax.training.changes import check_tokenizer
from memgpt_jax.training.device_memory import (
    HeldBytes,
    check_evaluation_memory,
    check_held_bytes,
    device_memory,
    held_bytes,
)
from memgpt_jax.training.distillation import distilled
from memgpt_jax.training.optimizer import check_patterns
from memgpt_jax.training.own_batches import Batches, check_batches
from memgpt_jax.training.pretrained import PretrainedStart, pretrained_start
from memgpt_jax.training.privacy import with_noise
from memgpt_jax.training.saving import restore_run
from memgpt_jax.training.state import LossFunction, TrainState, shardings
from memgpt_jax.training.teacher_cache import taught_shapes, with_cache
from memgpt_jax.training.teachers import check_tokenizers, with_teachers
from memgpt_jax.training.validation import check_begins, check_continues, stopped_at

OUTPUTS = ("output_names", "num_outputs")
"""Fields of a head that say what its outputs are."""
LEARNED = (*OUTPUTS, "tag_token", "case_as_token_type", "no_answer", "question_types", "hops", "mean", "std")
"""Fields of a head for which other data need other parameters."""


class Hooks(NamedTuple):
    """What a caller of `train` replaces."""

    batches: Batches | None
    """The caller's batches; None: the batches of `config.data`."""
    loss_fn: LossFunction | None
    """The caller's loss; None: cross-entropy."""


class Setup(NamedTuple):
    """A run whose settings fit the model and the devices; its folder has not been used yet."""

    config: ExperimentConfig
    """The experiment; with `pretrained`, its model has the architecture of the pretrained model."""
    hooks: Hooks
    """What the caller replaces."""
    pretrained: PretrainedStart | None
    """The pretrained model; None: all parameters are drawn."""
    teachers: tuple[models.Params, ...]
    """The parameters of teachers whose outputs are cached; (): there are none, or the loss holds their parameters."""
    mesh: jax.sharding.Mesh
    """The devices."""
    batch: data.Batch
    """One batch [B, ...], or its shapes."""
    held: HeldBytes
    """Bytes that each device holds throughout a training step."""
    limit: int | None
    """Memory of a device in bytes; None: unknown."""


class Resumed(NamedTuple):
    """A run as its latest good checkpoint holds it."""

    state: TrainState
    """The state of the run."""
    position: Any
    """The position in the data, a JSON value."""
    config: ExperimentConfig
    """The experiment as it was saved."""
    stopped: bool = False
    """Whether it was stopped early (`evaluation.patience`)."""


def prepare(config: ExperimentConfig, hooks: Hooks) -> Setup:
    """Check an experiment, with all that needs no folder. Raises `RunError` if it cannot be run."""
    with refused():
        config = completed(config)
        pretrained = None if config.pretrained is None else pretrained_start(config)
        if pretrained is not None:
            remedy = "give a model without a head, or data with the same labels in the same order"
            check_outputs(pretrained.config.model, config.data, f"pretrained={config.pretrained!r}", remedy)
            config = dataclasses.replace(pretrained.config, model=with_head_settings(pretrained.config))
        mesh = parallel.make_mesh(config.parallel)
        config, teachers = with_teachers(config)
        parallel.check_divides(dataclasses.replace(config, model=resolved(config.model)), mesh)
        if config.optimizer.trainable or config.optimizer.lr_multipliers:
            check_patterns(config.optimizer, models.functional(config.model).param_shapes())
        if hooks.batches is None:
            batch = data.batch_shapes(config.data, config.training)
        else:
            batch = check_batches(config, hooks.batches)
        if config.distill.active:
            check_hooks(config, hooks)
            batch = taught_shapes(config, batch)
            used, teachers = ((), teachers) if config.distill.cached else (teachers, ())
            used = jax.device_put(used, parallel.parameter_shardings(used, mesh))
            hooks = hooks._replace(loss_fn=jax.tree_util.Partial(distilled(config.distill), used))
        held, limit = held_bytes(config, mesh, batch), device_memory(mesh)
        check_held_bytes(held, limit)
        if hooks.batches is None:
            check_evaluation_memory(config, limit)
    return Setup(config, hooks, pretrained, teachers, mesh, batch, held, limit)


def check_hooks(config: ExperimentConfig, hooks: Hooks) -> None:
    """Raise `ValueError` if the caller replaces what a distillation needs."""
    check(hooks.loss_fn is None, "loss_fn replaces the loss: it needs distill.teachers=()")
    check(
        hooks.batches is None or not config.distill.cached,
        "distill.top_k and distill.by_spans cache teachers for the batches of the config: own batches need top_k=None "
        "and by_spans=False",
    )


def completed(config: ExperimentConfig) -> ExperimentConfig:
    """The experiment with everything filled in that follows from its data: labels, outputs, noise."""
    if not isinstance(config.data, TaskConfig):
        return config
    config = dataclasses.replace(config, data=config.data.completed())
    return with_noise(dataclasses.replace(config, model=with_head_settings(config)))


def with_head_settings(config: ExperimentConfig) -> BaseModelConfig:
    """The model, whose head knows the labels of the data and how their texts are read."""
    model = config.model
    if not (isinstance(model, HeadedConfig) and isinstance(model.head, StreamHeadConfig)):
        return model
    return dataclasses.replace(model, head=dataclasses.replace(model.head, **head_settings(config.data)))


def head_settings(data_config: Any) -> dict[str, Any]:
    """The fields of the head that follow from the data."""
    if not isinstance(data_config, TaskConfig):
        return {}
    names, settings = data_config.output_names, dict(data_config.head_settings)
    if names:
        settings |= {"output_names": names, "num_outputs": len(names)}
    texts = ("max_length", "truncation_side", "case_as_token_type", "tag_token", "clean")
    return settings | {name: getattr(data_config, name) for name in texts if hasattr(data_config, name)}


def check_outputs(
    model: BaseModelConfig, data_config: Any, name: str, remedy: str, fields: Sequence[str] = OUTPUTS
) -> None:
    """Raise `ValueError` if the head of a trained model does not fit the data.

    Args:
        model: the model.
        data_config: the data.
        name: how the message names the model.
        remedy: the end of the message.
        fields: fields of the head that must equal `head_settings(data_config)`.
    """
    head = getattr(model, "head", None)
    for field, wanted in head_settings(data_config).items():
        check(
            field not in fields or wanted == getattr(head, field, wanted),
            f"{name} has a head with {field}={getattr(head, field, None)}, and the data need {wanted}: {remedy}",
        )


def restore(setup: Setup, checkpoints: Checkpoints, extend: bool) -> Resumed | None:
    """The run that the checkpoints hold; None if there is none. Raises `RunError` if it cannot be continued."""
    workdir = checkpoints.folder.parent
    if checkpoints.latest_step() is None:
        check_begins(workdir)
        return None
    state, position = restore_run(checkpoints, setup.config, shardings(setup.config, setup.mesh), extend)
    step = int(state.step)
    saved = checkpoints.config(step)
    if step >= saved.training.steps and setup.config.training.steps > step:  # the last step was logged
        state = state._replace(totals=jax.tree.map(jnp.zeros_like, state.totals))
    stopped = not extend and stopped_at(workdir, step, setup.config.evaluation)
    resumed = Resumed(state, position, saved, parallel.broadcast_from_main(stopped))
    if not is_finished(setup.config, resumed):
        check_continues(setup.config, workdir)
    return resumed


def open_tokenizer(setup: Setup, workdir: Path, resumed: Resumed | None) -> data.Tokenizer | None:
    """The run's tokenizer; None for tasks without text and for batches of the caller."""
    if setup.hooks.batches is not None:
        return None
    with refused(), parallel.main_first("tokenizer"):
        tokenizer = run_tokenizer(setup.config, workdir, None if resumed is None else resumed.config)
        check_tokenizers(setup.config.distill, tokenizer)
        return tokenizer


def run_tokenizer(
    config: ExperimentConfig, workdir: Path, saved: ExperimentConfig | None = None
) -> data.Tokenizer | None:
    """The run's tokenizer, kept in `workdir/tokenizer` from the start; None for tasks without text.

    Args:
        config: the experiment.
        workdir: the folder of the run.
        saved: the experiment of the checkpoint from which the run is resumed; None: the run begins.

    Raises:
        RunError: the model's vocabulary is too small, or `config` names another tokenizer than the run has.
        ValueError: the tokenizer cannot be read.
    """
    if config.text is None:
        return None
    if saved is not None:
        tokenizer = load_run_tokenizer(workdir)
        check_tokenizer(saved, config, tokenizer, shown(workdir))
        return tokenizer
    tokenizer = data.tokenizer_of(config.data)
    assert tokenizer is not None
    added, noun = data.added_ids(config.data, tokenizer), "answers" if isinstance(config.data, TaskConfig) else "marks"
    needed = tokenizer.vocab_size + added
    if needed > config.model.vocab_size:
        raise RunError(
            f"the tokenizer has {tokenizer.vocab_size} token ids{f' and there are {added} {noun}' * bool(added)}, "
            f"but model.vocab_size is {config.model.vocab_size}; set model.vocab_size to at least {needed}"
        )
    tokenizer.save(workdir / "tokenizer")
    return tokenizer


def open_batches(
    setup: Setup, workdir: Path, tokenizer: data.Tokenizer | None, resumed: Resumed | None
) -> Batches | None:
    """The training batches at the position of the run.

    None if it is finished and its data has the same settings. Files of examples are read all the same: they may differ.
    """
    config = setup.config
    same = resumed is not None and resumed.config.data == config.data
    if is_finished(config, resumed) and same and not isinstance(config.data, ExamplesConfig):
        return None  # the content of files of examples is compared below
    with refused(), parallel.main_first("data"):
        batches = setup.hooks.batches
        if batches is None:
            batches = data.train_batches(config.data, config.training, config.seed, tokenizer)
        if resumed is not None:
            set_position(config, batches, resumed.position)
    if is_finished(config, resumed):
        return batches
    with refused():
        return with_cache(config, setup.teachers, setup.mesh, workdir, tokenizer, batches, steps_done(resumed))


def is_finished(config: ExperimentConfig, resumed: Resumed | None) -> bool:
    """Whether all `training.steps` are done, or the run was stopped early."""
    return (resumed is not None and resumed.stopped) or steps_done(resumed) >= config.training.steps


def steps_done(resumed: Resumed | None) -> int:
    """Steps that the run has taken; 0 if it begins."""
    return 0 if resumed is None else int(resumed.state.step)


def set_position(config: ExperimentConfig, batches: Batches, position: Any) -> None:
    """Set the data to the saved position. Raises `ValueError` if the data differs from that of the run."""
    try:
        batches.set_state(position)
    except ValueError as error:
        path = getattr(config.data, "train", None) or getattr(config.text or config.data, "path", None)
        raise ValueError(f"data.path={path!r}: {error}" if path else str(error)) from None


def check_metrics(workdir: Path, done: int) -> None:
    """Raise `RunError` if the metrics.jsonl of a run that is resumed after `done` steps is missing."""
    if parallel.broadcast_from_main((workdir / "metrics.jsonl").exists()):
        return
    raise RunError(
        f"{shown(workdir)} holds a run of {done} steps, but no metrics.jsonl: restore the file from a copy, or create "
        "an empty file to continue without the earlier records"
    )
