"""`generate`: prompts in, prompts with their answers out, as ids and as text."""

from collections.abc import Sequence
from typing import Literal, NamedTuple, Unpack

import numpy as np

from memgpt_jax.config.checks import check, whole
from memgpt_jax.data import Tokenizer
from memgpt_jax.generation.answers import Answers, empty_texts, push, read_prompts, repeated
from memgpt_jax.generation.beam import IMPOSSIBLE, BeamSettings, beam_search
from memgpt_jax.generation.decode import fork
from memgpt_jax.generation.prefill import power_of_two, prefill
from memgpt_jax.generation.prompts import Prompt, padded
from memgpt_jax.generation.request import DecoderModel, GenerativeModel, Request, request_of, with_decoder_state
from memgpt_jax.generation.sampling import SamplingOptions, check_rows
from memgpt_jax.models import ModelState, Seq2SeqState
from memgpt_jax.shapes import Int32


class Generated(NamedTuple):
    """Answers to B prompts: R = B * num_return_sequences rows, the answers to a prompt side by side, the best first
    for beam search."""

    ids: Int32[np.ndarray, "R N"]
    """Prompt and answer of each row, padded on the right; a stop id that ended the answer is included."""
    lengths: Int32[np.ndarray, " R"]
    """Number of ids of each row without the padding."""
    texts: list[str] | None
    """Prompt and answer of each row as text, without the stop; None without a tokenizer."""
    state: ModelState | Seq2SeqState
    """R rows. Everything but the last id of each row has been read: continue with that id as the prompt."""


def generate(
    model: GenerativeModel,
    prompt: Prompt,
    *,
    tokenizer: Tokenizer | None = None,
    state: ModelState | Seq2SeqState | None = None,
    max_new_tokens: int | None = None,
    max_length: int | None = None,
    num_beams: int = 1,
    num_return_sequences: int = 1,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    stop: int | str | Sequence[int | str] = (),
    ignore_eos: bool = False,
    pad_token_id: int | None = None,
    seed: int = 0,
    **sampling: Unpack[SamplingOptions],
) -> Generated:
    """Continue prompts; the memory reads and writes every token of prompt and answer.

    Decoding is greedy by default, random if `temperature` or a filter is given, and a beam search if `num_beams` is
    above 1. Each beam and each returned sequence has its own copy of the memory. An answer depends on its own prompt
    and state, the seed and its row number, not on the other rows.

    Args:
        model: a `MemGPT`, an `EncoderDecoder`, or `(config, params)` of a decoder.
        prompt: ids [B, L]; B sequences of ids of any lengths, without padding; or, with a `tokenizer`, a text or a list
            of texts.
        tokenizer: turns texts into ids and back. A text begins a document if no `state` is given.
        state: what the model has read before (default: nothing), B rows. It is not modified. An encoder-decoder needs
            one with a source: `model.read_source(source, model.init_state(B))`.
        max_new_tokens, max_length: the largest number of new tokens of a row, or of tokens with the prompt; give one.
        num_beams, length_penalty, early_stopping: beam search, in which n new tokens score log p / n ** length_penalty.
        num_return_sequences: answers per prompt; for beam search the best ones, at most `num_beams`.
        stop: ids, and with a tokenizer also texts, that end an answer, in addition to the end of the text: `stop_ids`
            and `start_id` of the tokenizer; if it has no `stop_ids`, those that `from_pretrained` read.
        ignore_eos: True: the end of the text does not end an answer; only `stop` and the limits do.
        pad_token_id: the id that pads rows on the right; default: the tokenizer's `pad_id`, else the first stop id,
            else 0.
        seed: seed of the random draws. The same arguments and seed give the same tokens.
        sampling: temperature, top_k, top_p, min_p, repetition_penalty and no_repeat_ngram_size, see `Sampling`. The
            penalty applies to ids of the prompt and the answer, not to ids that only the `state` has read.

    Returns:
        Ids [B * num_return_sequences, N], their lengths, their texts and the state.

    Raises:
        ValueError: an argument is out of range, contradicts another or does not fit the model (the message names it);
            or logits are not finite, for example because parameters hold NaN.
    """
    request = request_of(
        model,
        prompt,
        tokenizer=tokenizer,
        state=state,
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        num_return_sequences=num_return_sequences,
        stop=stop,
        ignore_eos=ignore_eos,
        seed=seed,
        sampling=sampling,
    )
    beams = BeamSettings(whole("num_beams", num_beams, 1), length_penalty, early_stopping)
    _check_search(request, beams)
    pad = _pad_id(request, pad_token_id)
    if beams.num_beams > 1:
        new, after = _search(request, beams)
        texts = empty_texts(request)
        push(texts, new)
    else:
        answers = Answers(request)
        answers.finish()
        new, after, texts = answers.new, answers.state, answers.texts
    for text in texts:
        text.rest()
    prompts = request.prompts
    rows = [
        np.concatenate([before, row[row >= 0]])
        for before, row in zip(repeated(prompts.rows, request.copies), new, strict=True)
    ]
    return Generated(
        ids=padded(rows, pad),
        lengths=np.array([len(row) for row in rows], np.int32),
        texts=None
        if tokenizer is None
        else [
            before + text.text
            for before, text in zip(repeated(prompts.prompt_texts(tokenizer), request.copies), texts, strict=True)
        ],
        state=with_decoder_state(state, after, request.copies),
    )


def _pad_id(request: Request, pad_token_id: int | None) -> int:
    if pad_token_id is not None:
        return whole("pad_token_id", pad_token_id, -(2**31))
    if request.tokenizer is not None and request.tokenizer.pad_id is not None:
        return request.tokenizer.pad_id
    return int(next(iter(request.prompts.stop), 0))


def _check_search(request: Request, beams: BeamSettings) -> None:
    """Refuse values of beam search that are out of range, and options that contradict each other."""
    beams.check(int(request.prompts.limit.max()))
    sampling, copies = request.sampling, request.copies
    if beams.num_beams > 1:
        check(
            sampling.is_greedy,
            f"num_beams={beams.num_beams} is a beam search: remove temperature, top_k, top_p and min_p",
        )
        check(
            copies <= beams.num_beams,
            f"num_return_sequences={copies} must be at most num_beams={beams.num_beams}",
        )
        check(
            not request.prompts.stop_texts,
            f"stop: beam search ends answers at ids only, got the texts {request.prompts.stop_texts}",
        )
    else:
        check(
            copies == 1 or not sampling.is_greedy,
            f"num_return_sequences={copies} greedy answers are all equal: give a temperature, a filter or num_beams",
        )
        check(
            beams.length_penalty == 1.0 and not beams.early_stopping,
            "length_penalty and early_stopping need num_beams > 1",
        )


def _search(request: Request, beams: BeamSettings) -> tuple[Int32[np.ndarray, "R N"], ModelState]:
    """Beam search: the new ids, -1 after the end of a row, and the state after all but each row's last id."""
    model, prompts, copies = request.model, request.prompts, request.copies
    read = read_prompts(request)
    capacity = power_of_two(int(prompts.limit.max()))
    found, score = beam_search(
        model.config, model.params, read, sampling=request.sampling, settings=beams, capacity=capacity
    )
    score = np.asarray(score)
    check_rows(~np.isnan(score).any(axis=1) & (score[:, 0] > IMPOSSIBLE / 2))
    number = int((score > IMPOSSIBLE / 2).sum(axis=1).min())
    check(
        number >= copies,
        f"num_return_sequences={copies} must be at most {number}, the number of answers that "
        f"num_beams={beams.num_beams} found",
    )
    new = np.asarray(found)[:, :copies].reshape(-1, capacity)
    return new, _state_after(model, new, fork(read.state, copies))


def _state_after(model: DecoderModel, new: np.ndarray, state: ModelState) -> ModelState:
    """The state after all but the last id of each answer: the search does not keep the states of finished beams."""
    return prefill(model.config, model.params, [row[row >= 0][:-1] for row in new], state)[1]
