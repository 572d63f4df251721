"""`stream_generate`: the answers to prompts, one step at a time."""

from collections.abc import Iterator, Sequence
from typing import Unpack

from memgpt_jax.config.checks import check
from memgpt_jax.data import Tokenizer
from memgpt_jax.generation.answers import Answers, Piece
from memgpt_jax.generation.prompts import Prompt
from memgpt_jax.generation.request import GenerativeModel, request_of
from memgpt_jax.generation.sampling import SamplingOptions
from memgpt_jax.models import ModelState, Seq2SeqState


def stream_generate(
    model: GenerativeModel,
    prompt: Prompt,
    *,
    tokenizer: Tokenizer | None = None,
    state: ModelState | Seq2SeqState | None = None,
    max_new_tokens: int | None = None,
    max_length: int | None = None,
    num_return_sequences: int = 1,
    stop: int | str | Sequence[int | str] = (),
    ignore_eos: bool = False,
    seed: int = 0,
    **sampling: Unpack[SamplingOptions],
) -> Iterator[Piece]:
    """Continue prompts as `generate` does without beam search, and yield what each step adds.

    The prompts are checked and read before the function returns. `Session.stream` also keeps the state.

    Args: as in `generate`.

    Returns:
        An iterator over `Piece(ids, texts)` of R = B * num_return_sequences rows, without the prompts.

    Raises:
        ValueError: as `generate`.
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
    check(
        request.copies == 1 or not request.sampling.is_greedy,
        f"num_return_sequences={request.copies} greedy answers are all equal: give a temperature or a filter",
    )
    return Answers(request).stream()
