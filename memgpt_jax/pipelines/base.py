"""What all pipelines share: a model with its tokenizer, from a run, a folder or memory, and checks of the arguments."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from memgpt_jax import models
from memgpt_jax.checkpoint import load_run, load_run_tokenizer
from memgpt_jax.config.checks import check, instance_of
from memgpt_jax.config.data import DataConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.model import BaseModelConfig, EncoderConfig, ModelConfig
from memgpt_jax.data.tasks.labelled_media import LabelledMediaConfig
from memgpt_jax.data.tasks.triples import TriplesConfig
from memgpt_jax.data.tokenizers.base import Tokenizer
from memgpt_jax.data.tokenizers.files import refuse_surrogates
from memgpt_jax.data.tokenizers.load import load_tokenizer, read_tokenizer
from memgpt_jax.interop import from_pretrained
from memgpt_jax.interop.adapters import read_adapters
from memgpt_jax.models.heads.labels import LabelHeadConfig
from memgpt_jax.models.model_functions import AnyModel

CALL, ENCODER_CALL = 128, 512
"""Most tokens of a call of a decoder, and of a model whose tokens see later ones of the call, if neither a run nor the
model determines them."""


class Loaded(NamedTuple):
    """A model to use."""

    config: BaseModelConfig
    params: models.Params
    tokenizer: Tokenizer
    """None for a knowledge graph, and for labels of pictures and sounds: their pipelines read no text."""
    length: int
    """Tokens of a call: those of the run's evaluation, or of `HeadedConfig.call_length`; else as many as an encoder has
    learned positions, or `CALL` or `ENCODER_CALL`."""
    data: DataConfig | None = None
    """The data of a run or of adapters; None: the model is neither."""
    stop_ids: tuple[int, ...] = ()
    """The ids that end a text by the files of a pretrained model; those of the tokenizer come first."""


def load(
    model: str | Path | AnyModel | tuple[BaseModelConfig, models.Params],
    tokenizer: Any = None,
    step: int | None = None,
    adapters: str | Path | None = None,
) -> Loaded:
    """A model and its tokenizer.

    Args:
        model: the folder of a run or of a saved model, the name of a model on the Hub, a model, or `(config, params)`.
        tokenizer: a tokenizer, or a folder or name of one; default: that of the run or folder.
        step: of a run: the step of the checkpoint; default: the best of its validations, else the latest.
        adapters: a folder of adapters that were trained over `model`, a folder or a name; their tokenizer is the
            default.

    Raises:
        ValueError: there is no such model, no tokenizer, the tokenizer has ids that the model lacks, or the adapters
            were trained over another model.
    """
    length = data = opened = None
    if adapters is not None:
        check(isinstance(model, str | Path), "adapters= needs model=, the folder or the name of their pretrained model")
        check(step is None, f"step={step} is of runs: adapters have no steps")
        opened = from_pretrained(str(model), adapters=adapters)
        saved = read_adapters(adapters)
        config, params, length, data = opened.config, models.to_params(opened), saved.call_length, saved.data
        tokenizer = tokenizer or read_tokenizer(adapters)
    elif isinstance(model, str | Path) and (Path(model).expanduser() / "checkpoints").is_dir():
        run = load_run(model, step)
        config, params, length = run.config.model, run.params, run.config.evaluation.chunk_length
        data = run.config.data
        if isinstance(data, TriplesConfig | LabelledMediaConfig):
            return Loaded(config.with_kernels("auto"), params, tokenizer, length, data)
        tokenizer = tokenizer or load_run_tokenizer(model)
    elif isinstance(model, str | Path):
        opened = from_pretrained(model, task_head=True)
        config, params = opened.config, models.to_params(opened)
        tokenizer = tokenizer or load_tokenizer(model)
    elif isinstance(model, tuple):
        config, params = model
    else:
        opened = model
        config, params = model.config, models.to_params(model)
    check(tokenizer is not None, "a model in memory needs a tokenizer: give tokenizer=")
    tokenizer = load_tokenizer(tokenizer) if isinstance(tokenizer, str | Path) else tokenizer
    check(
        tokenizer.vocab_size <= config.vocab_size,
        f"the tokenizer has {tokenizer.vocab_size} ids, the model {config.vocab_size}: give the tokenizer of the model",
    )
    length = length or getattr(config, "call_length", None) or _most_tokens(config)
    stop_ids = tuple(getattr(getattr(opened, "origin", None), "stop_ids", ()))
    return Loaded(config.with_kernels("auto"), params, tokenizer, length, data, stop_ids)


def _most_tokens(config: BaseModelConfig) -> int:
    """The tokens of a call: what an encoder does not read at once, its tokens do not see together."""
    stacks = [*config.stacks.values()]
    if all(isinstance(stack, ModelConfig) for stack in stacks):
        return CALL
    encoders = [stack for stack in stacks if isinstance(stack, EncoderConfig)]
    return min((stack.num_positions for stack in encoders if stack.position == "learned"), default=ENCODER_CALL)


def labelling(loaded: Loaded, *, of_words: bool) -> tuple[HeadedConfig, LabelHeadConfig, tuple[str, ...]]:
    """The configurations of a model and of its head, and the names of the outputs.

    Raises `ValueError` if the model has no head for labels, or its head labels words instead of texts or vice versa.
    """
    config = instance_of(loaded.config, HeadedConfig, "model")
    head = instance_of(config.head, LabelHeadConfig, "model.head")
    names = ("text-classification", "token-classification")
    fits = (head.pool == "none") == of_words
    check(fits, f"the model labels {'texts' if of_words else 'words'}: use the pipeline {names[not of_words]!r}")
    return config, head, head.output_names or tuple(f"LABEL_{number}" for number in range(head.num_outputs))


def texts_of(inputs: str | Sequence[str]) -> list[str]:
    """The texts of one text or several. Raises `ValueError` if one is not a text that UTF-8 can express."""
    if not isinstance(inputs, str | list | tuple):
        raise ValueError(f"inputs must be a text or a list of texts, got a {type(inputs).__name__}")
    texts = [inputs] if isinstance(inputs, str) else list(inputs)
    for text in texts:
        check(isinstance(text, str), f"inputs must be a text or a list of texts, got a {type(text).__name__}")
        refuse_surrogates(text)
    return texts


def check_sizes(**sizes: Any) -> None:
    """Raise `ValueError` unless all sizes are whole numbers of at least 1."""
    for name, size in sizes.items():
        is_whole = isinstance(size, int | np.integer) and not isinstance(size, bool)
        check(is_whole, f"{name} must be a whole number, got {size!r}")
        check(bool(size >= 1), f"{name} must be at least 1, got {size}")
