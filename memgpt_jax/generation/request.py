"""The arguments of a call of `generate`, checked."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from memgpt_jax import models
from memgpt_jax.config.checks import check, whole
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import Tokenizer
from memgpt_jax.generation.decode import fork
from memgpt_jax.generation.prompts import Prompt, Prompts
from memgpt_jax.generation.sampling import Sampling
from memgpt_jax.models import EncoderDecoder, MemGPT, ModelState, Params, Seq2SeqState
from memgpt_jax.models.arguments import check_state as check_same_state
from memgpt_jax.models.arguments import warn_beyond_context
from memgpt_jax.models.cross_attention import SourceCache


class DecoderModel(NamedTuple):
    """A model that generates: a decoder's configuration and parameters."""

    config: ModelConfig
    params: Params
    stop_ids: tuple[int, ...]
    """The ids that end a text according to the files that `from_pretrained` read; () if there are none."""


GenerativeModel = MemGPT | EncoderDecoder | tuple[ModelConfig, Params] | DecoderModel


class Request(NamedTuple):
    """The checked arguments of one call of `generate`, `stream_generate` or `Session.stream`."""

    model: DecoderModel
    prompts: Prompts
    state: ModelState
    """[B] rows that the prompts continue."""
    tokenizer: Tokenizer | None
    sampling: Sampling
    copies: int
    """Answers per prompt; R = B * copies rows are decoded."""
    seed: int


def request_of(
    model: GenerativeModel,
    prompt: Prompt,
    *,
    tokenizer: Tokenizer | None,
    state: ModelState | Seq2SeqState | None,
    max_new_tokens: int | None,
    max_length: int | None,
    num_return_sequences: int,
    stop: int | str | Sequence[int | str],
    ignore_eos: bool,
    seed: int,
    sampling: Mapping[str, Any],
) -> Request:
    """Check the arguments of `generate`, which documents them. Raises `ValueError` with the name of a wrong one."""
    decoder = decoder_of(model)
    prompts = Prompts(
        decoder.config,
        prompt,
        tokenizer=tokenizer,
        starts_document=state is None,
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        stop=stop,
        end_ids=default_end_ids(tokenizer, decoder, ignore_eos),
    )
    before = _decoder_state(decoder, state, len(prompts.rows))
    position = np.asarray(before.position).astype(np.int64)
    check_length(decoder.config, int((position + prompts.lengths + prompts.limit).max()))
    return Request(
        model=decoder,
        prompts=prompts,
        state=before,
        tokenizer=tokenizer,
        sampling=Sampling(**sampling),
        copies=whole("num_return_sequences", num_return_sequences, 1),
        seed=whole("seed", seed, 0, 2**32 - 1),
    )


def decoder_of(model: GenerativeModel) -> DecoderModel:
    """The decoder of a model, or of an encoder-decoder. Raises `ValueError` if the model has none."""
    if isinstance(model, DecoderModel):
        return model
    stop_ids: tuple[int, ...] = ()
    if isinstance(model, tuple) and len(model) == 2:
        config, params = model
    elif isinstance(model, nnx.Module):
        stop_ids = tuple(getattr(getattr(model, "origin", None), "stop_ids", ()))
        decoder = model.decoder if isinstance(model, EncoderDecoder) else model
        config, params = getattr(decoder, "config", None), models.to_params(decoder)
    else:
        raise ValueError(f"model must be a MemGPT, an EncoderDecoder or (config, params), got {type(model).__name__}")
    if not isinstance(config, ModelConfig) or not config.causal:
        raise ValueError(f"{type(config).__name__} models cannot generate text")
    return DecoderModel(config, params, stop_ids)


def default_end_ids(tokenizer: Tokenizer | None, model: DecoderModel, ignore_eos: bool) -> list[int]:
    """The ids that end an answer by default; [] if they are ignored.

    With a tokenizer, its `stop_ids` and `start_id` (which begins the next document). Without one, or if its files
    name no end of a text, the `stop_ids` of the model.
    """
    check(isinstance(ignore_eos, bool), f"ignore_eos must be True or False, got {ignore_eos!r}")
    if ignore_eos:
        return []
    if tokenizer is None:
        return [*model.stop_ids]
    return [*(tokenizer.stop_ids or model.stop_ids), tokenizer.start_id]


def check_length(config: ModelConfig, tokens: int) -> None:
    """Raise `ValueError` if a text of this length in tokens exceeds the table of learned positions.

    Warns if it exceeds the context length of a pretrained model without a memory.
    """
    check(
        config.position != "learned" or tokens <= config.num_positions,
        f"the model has learned positions for num_positions={config.num_positions} tokens; the text read before, the "
        f"prompt and the answer may have {tokens} together: give a shorter prompt or fewer new tokens",
    )
    warn_beyond_context(config, tokens, stacklevel=5)


def _decoder_state(model: DecoderModel, state: ModelState | Seq2SeqState | None, rows: int) -> ModelState:
    """The state of the decoder. Raises `ValueError` unless it belongs to this model, has `rows` rows and a source in
    each, if the decoder attends to one."""
    given = state.decoder if isinstance(state, Seq2SeqState) else state
    if given is None:
        given = models.functional(model.config).init_state(rows)
    else:
        expected = jax.eval_shape(lambda: models.functional(model.config).init_state(rows))
        check_same_state(given, expected, rows, f"but there are {rows} prompts")
    check_source(given)
    return given


def check_source(state: ModelState) -> None:
    """Raise `ValueError` if the decoder of an encoder-decoder has not read a source in every row."""
    source = next((layer.source for layer in state.layers), ())
    if not isinstance(source, SourceCache):
        return
    missing = np.flatnonzero(~np.asarray(source.valid).any(axis=1)).tolist()
    check(
        not missing,
        f"the decoder attends to a source, and rows {missing} of the state have none: "
        "give state=model.read_source(source, model.init_state(batch_size))",
    )


def with_decoder_state(
    given: ModelState | Seq2SeqState | None, decoder: ModelState, copies: int
) -> ModelState | Seq2SeqState:
    """The decoder's new state; if an encoder-decoder's state was given, together with the encoder's state."""
    if isinstance(given, Seq2SeqState):
        return Seq2SeqState(fork(given.encoder, copies), decoder)
    return decoder
