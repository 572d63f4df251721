"""Objectives on text, one file each: the configuration, and the batches of `memgpt_jax.data.objectives.base`."""

from typing import Any

from memgpt_jax.config.data import CausalConfig, ObjectiveConfig
from memgpt_jax.config.registry import Registry
from memgpt_jax.data.objectives.base import Objective
from memgpt_jax.data.objectives.causal import Causal
from memgpt_jax.data.objectives.masked import Masked, MaskedConfig
from memgpt_jax.data.objectives.masked_next_sentence import MaskedNextSentence, MaskedNextSentenceConfig
from memgpt_jax.data.objectives.next_sentence import NextSentence, NextSentenceConfig
from memgpt_jax.data.objectives.permutation import PermutationConfig, PermutationObjective
from memgpt_jax.data.objectives.span_corruption import SpanCorruption, SpanCorruptionConfig

OBJECTIVES: Registry[type[Objective[Any]]] = Registry("objective", Objective, ObjectiveConfig)
"""The objectives by name, as in `--data.objective NAME`."""
register_objective = OBJECTIVES.register
"""`register_objective(name, config, module)`: make an objective available as `--data.objective NAME`."""

register_objective("causal", CausalConfig, Causal)
register_objective("masked", MaskedConfig, Masked)
register_objective("next_sentence", NextSentenceConfig, NextSentence)
register_objective("masked_next_sentence", MaskedNextSentenceConfig, MaskedNextSentence)
register_objective("span_corruption", SpanCorruptionConfig, SpanCorruption)
register_objective("permutation", PermutationConfig, PermutationObjective)


def make_objective(config: ObjectiveConfig) -> Objective[Any]:
    """The objective of a configuration; `ValueError` if none is registered for it."""
    return OBJECTIVES.of(config)(config)


__all__ = [
    "OBJECTIVES",
    "CausalConfig",
    "MaskedConfig",
    "MaskedNextSentenceConfig",
    "NextSentenceConfig",
    "Objective",
    "ObjectiveConfig",
    "PermutationConfig",
    "SpanCorruptionConfig",
    "make_objective",
    "register_objective",
]
