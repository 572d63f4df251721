"""Differentially private training (`PrivateConfig`) by the jax-privacy library, the extra `private`."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from memgpt_jax.config import extras
from memgpt_jax.config.checks import check
from memgpt_jax.config.experiment import ExperimentConfig, PrivateConfig
from memgpt_jax.data import Batch
from memgpt_jax.data.examples.files import ExamplesConfig, read_split
from memgpt_jax.training.optimizer import is_trained
from memgpt_jax.training.state import Totals

PRECISION = 1e-3
"""Step of the grid on which privacy losses are computed; a coarser one gives a larger, still valid epsilon."""


library = functools.partial(extras.library, noun="gradients with optimizer.private", extra="private")
"""A module of the extra `private`. Raises `ValueError`, which names the extra, if it is not installed."""


def with_noise(config: ExperimentConfig) -> ExperimentConfig:
    """The experiment with the noise multiplier that follows from epsilon; unchanged without private training."""
    private = config.optimizer.private
    if private is None:
        return config
    library("jax_privacy")
    texts = number_of_texts(config)
    check(private.delta < 1 / texts, f"optimizer.private.delta={private.delta} must be below 1 / {texts} texts")
    if private.epsilon is None:
        return config
    rows, most, steps = _rows(config), config.training.batch_size, config.training.steps
    noise = _noise(private.epsilon, private.delta, rows=rows, most=most, texts=texts, steps=steps)
    private = dataclasses.replace(private, epsilon=None, noise_multiplier=noise)
    return dataclasses.replace(config, optimizer=dataclasses.replace(config.optimizer, private=private))


def epsilon_of(config: ExperimentConfig) -> Callable[[int], float] | None:
    """The epsilon of the first n steps of a run, as a function of n; None without private training."""
    private = config.optimizer.private
    if private is None:
        return None
    assert private.noise_multiplier is not None
    options = {"rows": _rows(config), "most": config.training.batch_size, "texts": number_of_texts(config)}
    return functools.partial(_epsilon, private.noise_multiplier, private.delta, **options)


def number_of_texts(config: ExperimentConfig) -> int:
    """The number of training texts."""
    assert isinstance(config.data, ExamplesConfig)
    return len(read_split(config.data, "train"))


def _rows(config: ExperimentConfig) -> int:
    rows = getattr(config.data, "sample_rows", None)
    assert isinstance(rows, int)  # the experiment checks it
    return rows


def _accountant() -> Any:
    accounting = library("jax_privacy.accounting")
    accountant = accounting.PldAccountantConfig(value_discretization_interval=PRECISION)
    return accounting.DpsgdTrainingAccountant(accountant)


@functools.cache
def _noise(epsilon: float, delta: float, *, rows: int, most: int, texts: int, steps: int) -> float:
    return library("jax_privacy.accounting").calibrate_noise_multiplier(
        target_epsilon=epsilon,
        accountant=_accountant(),
        batch_sizes=rows,
        num_updates=steps,
        num_samples=texts,
        target_delta=delta,
        truncated_batch_size=most,
    )


@functools.cache
def _epsilon(noise: float, delta: float, steps: int, *, rows: int, most: int, texts: int) -> float:
    params = library("jax_privacy.accounting").DpParams(
        noise_multipliers=noise, num_samples=texts, delta=delta, batch_size=rows, truncated_batch_size=most
    )
    return float(_accountant().compute_epsilon(steps, params))


def private_gradients(
    config: ExperimentConfig,
    params: Any,
    batch: Batch,
    key: jax.Array,
    loss: Callable[[Any, Batch, jax.Array], tuple[jax.Array, Totals]],
) -> tuple[Any, Totals]:
    """The gradient of `PrivateConfig`, 0 for parameters that are not trained, and the totals of the batch.

    Args:
        config: static; `optimizer.private.noise_multiplier` is known.
        params: the parameters.
        batch: arrays [B, ...], one text in each row.
        key: of dropout and noise.
        loss: the loss and the totals of a batch [1, ...] of one row, from an empty memory.
    """
    private = config.optimizer.private
    assert isinstance(private, PrivateConfig) and private.noise_multiplier is not None
    leaves, structure = jax.tree.flatten(params)
    trained = jax.tree.leaves(is_trained(config.optimizer, params))
    of_rows, of_noise = jax.random.split(key)

    def row_loss(chosen: list[jax.Array], row: Batch, key: jax.Array) -> tuple[jax.Array, Totals]:
        given = iter(chosen)
        merged = [next(given) if kept else leaf for kept, leaf in zip(trained, leaves, strict=True)]
        value, totals = loss(jax.tree.unflatten(structure, merged), row, key)
        return value / jnp.where(totals.weight > 0, totals.weight, 1), totals

    clipped = library("jax_privacy").clipped_grad(
        row_loss, has_aux=True, l2_clip_norm=private.clip_norm, batch_argnums=1, prng_argnum=2
    )
    chosen = [leaf for kept, leaf in zip(trained, leaves, strict=True) if kept]
    sums, found = clipped(chosen, batch, of_rows)
    noise = library("jax_privacy.noise_addition").gaussian_privatizer(
        stddev=private.noise_multiplier * private.clip_norm, prng_key=of_noise
    )
    noisy, _ = noise.update(sums, noise.init(sums))
    given = iter(noisy)
    gradients = [
        next(given) / _rows(config) if kept else jnp.zeros_like(leaf)
        for kept, leaf in zip(trained, leaves, strict=True)
    ]
    totals = jax.tree.map(lambda values: values.sum(axis=0), found.aux)
    return jax.tree.unflatten(structure, gradients), totals
