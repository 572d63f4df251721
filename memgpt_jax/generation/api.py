"""`generate`: prompts in, prompts with their answers out, as ids or as text."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from memgpt_jax import models
from memgpt_jax.config.checks import check, whole
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.generation.beam import IMPOSSIBLE, BeamSettings, beam_search
from memgpt_jax.generation.decode import CAPACITY, advance, begin, fork
from memgpt_jax.generation.prefill import power_of_two, prefill
from memgpt_jax.generation.prompts import Prompts, check_length, check_state, ends_of, padded
from memgpt_jax.generation.sampling import NOT_FINITE, Sampling, check_rows
from memgpt_jax.generation.text import AnswerText
from memgpt_jax.models import MemGPT, ModelState


def generate(
    model: MemGPT | tuple[ModelConfig, Any],
    prompt: Any,
    *,
    tokenizer: Any = None,
    state: ModelState | None = None,
    max_new_tokens: int | None = None,
    max_length: int | None = None,
    num_beams: int = 1,
    num_return_sequences: int = 1,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    repetition_penalty: float | None = None,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] = False,
    stop: int | str | Sequence[int | str] = (),
    ignore_eos: bool = False,
    pad_token_id: int | None = None,
    seed: int = 0,
    stream: bool = False,
    return_state: bool = False,
) -> Any:
    """Continue prompts, the memory live: every token, of prompt and answer, is read and remembered.

    Greedy by default; drawn at random when `temperature` or a filter is given; by beam search when `num_beams` is above
    1. Beams and returned sequences fork the memory. An answer depends on its own prompt and state, the seed and its
    place in the batch, not on its neighbours.

    Args:
        model: a `MemGPT`, or `(config, params)`.
        prompt: ids [B, L], or B lists of ids of any lengths, all of which are read: prompts need no padding. Or a text,
            or a list of texts, with a `tokenizer`.
        tokenizer: as in `memgpt_jax.data.Tokenizer`. A text without a `state` begins a document.
        state: what the model has read before (default: nothing). It is not modified.
        max_new_tokens, max_length: new tokens, or tokens with the prompt, of each row; one of the two.
        num_beams, length_penalty, early_stopping: beam search, where n new tokens score log p / n ** length_penalty.
        num_return_sequences: answers to each prompt; in beam search the best ones, at most num_beams.
        temperature, top_k, top_p, min_p, repetition_penalty: see `Sampling`. What only the `state` has read is not
            penalised.
        stop: ids, and for texts also strings, that end an answer, besides the end of the text (`stop_ids` and
            `start_id` of the tokenizer; where it has no `stop_ids`, those that `from_pretrained` read). Ids returned
            include the stop id; returned texts do not include the stop.
        ignore_eos: the end of the text does not end an answer; only `stop` and the limits do.
        pad_token_id: fills rows up on the right; default: the tokenizer's `pad_id`, or the first stop id, or 0.
        seed: of the draws. The same arguments and seed give the same tokens.
        stream: return an iterator over what is new, token by token: pieces of text (one prompt, one answer), or ids
            [R, 1], -1 in rows that have ended.
        return_state: for ids, return the state too. It has read all but each row's last token: go on with that as the
            prompt.

    Returns:
        Ids [B * num_return_sequences, prompt + new] int32, a prompt's answers together, padded on the right. For a
        text its continuation, prompt included; for several texts or answers, the list of them.

    Raises:
        ValueError: an argument is out of range, contradicts another or does not fit the model; the message names it.
            Or logits are not finite, for example because parameters hold NaN; then nothing is returned.
    """
    config, params = config_and_params(model)
    check(isinstance(ignore_eos, bool), f"ignore_eos must be True or False, got {ignore_eos!r}")
    prompts = Prompts(
        config,
        prompt,
        tokenizer=tokenizer,
        begins=state is None,
        max_new_tokens=max_new_tokens,
        max_length=max_length,
        stop=stop,
        ends=() if ignore_eos else ends_of(tokenizer, model),
    )
    if state is None:
        state = models.init_state(config, len(prompts.rows))
    else:
        check_state(config, state, len(prompts.rows))
    sampling = Sampling(
        temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=repetition_penalty
    )
    num_return_sequences = whole("num_return_sequences", num_return_sequences, 1)
    beams = BeamSettings(whole("num_beams", num_beams, 1), length_penalty, early_stopping)
    _check_search(prompts, sampling, beams, num_return_sequences, stream, return_state)
    seed = whole("seed", seed, 0, 2**32 - 1)
    check_length(config, int((np.asarray(state.position) + prompts.lengths + prompts.limit.astype(np.int64)).max()))

    if beams.num_beams > 1:
        new, state = _search(config, params, prompts, state, sampling, beams, num_return_sequences, return_state)
        texts = _answer_texts(prompts, tokenizer, num_return_sequences)
        _push(texts, new)
    else:
        answers = Answers(config, params, prompts, tokenizer, state, sampling, num_return_sequences, seed)
        if stream:
            return answers.stream()
        answers.finish()
        new, state, texts = answers.new, answers.state, answers.texts

    if prompts.texts:
        for text in texts:
            text.rest()
        result = [
            prompt + a.text for prompt, a in zip(_repeat(prompts.texts, num_return_sequences), texts, strict=True)
        ]
        result = result[0] if prompts.is_single_text and num_return_sequences == 1 else result
    else:
        default = next(iter(prompts.stop), 0) if tokenizer is None or tokenizer.pad_id is None else tokenizer.pad_id
        pad = default if pad_token_id is None else whole("pad_token_id", pad_token_id, -(2**31))
        rows = zip(_repeat(prompts.rows, num_return_sequences), new, strict=True)
        result = padded([np.concatenate([prompt, row[row >= 0]]) for prompt, row in rows], pad)
    return (result, state) if return_state else result


def _check_search(prompts, sampling, beams, num_return_sequences, stream, return_state) -> None:
    """Refuse values out of range, and options that contradict each other."""
    num_beams, early_stopping = beams.num_beams, beams.early_stopping
    is_number = isinstance(beams.length_penalty, int | float) and np.isfinite(beams.length_penalty)
    check(is_number, f"length_penalty must be a number, got {beams.length_penalty!r}")
    valid = isinstance(early_stopping, bool) or early_stopping == "never"
    check(valid, f'early_stopping must be True, False or "never", got {early_stopping!r}')
    check(not return_state or not prompts.texts, "return_state: for texts, a Session keeps the state")
    if num_beams > 1:
        check(sampling.is_greedy, f"num_beams={num_beams} searches: no temperature, top_k, top_p or min_p")
        check(
            num_return_sequences <= num_beams,
            f"num_return_sequences={num_return_sequences} must be at most num_beams={num_beams}",
        )
        check(not stream, "stream: beam search knows its answer only at the end")
        check(not prompts.stop_texts, f"stop: beam search ends answers at ids, not at texts {prompts.stop_texts}")
    else:
        check(
            num_return_sequences == 1 or not sampling.is_greedy,
            f"num_return_sequences={num_return_sequences} greedy answers are all the same: "
            "give a temperature, a filter or num_beams",
        )
        check(
            beams.length_penalty == 1.0 and not early_stopping, "length_penalty and early_stopping need num_beams > 1"
        )
    if stream:
        check(not return_state, "stream and return_state: a Session streams and keeps its state")
        single = len(prompts.rows) == num_return_sequences == 1
        check(single or not prompts.texts, "stream: texts come one prompt and one answer at a time")


def config_and_params(model: MemGPT | tuple[ModelConfig, Any]) -> tuple[ModelConfig, Any]:
    """What a model computes, and with which parameters. Raises `ValueError` where it is no decoder."""
    is_pair = isinstance(model, tuple) and len(model) == 2
    is_model = is_pair or isinstance(model, nnx.Module)
    check(is_model, f"model must be a MemGPT or (config, params), got {type(model).__name__}")
    config, params = model if is_pair else (model.config, models.split(model))
    check(getattr(config, "causal", False), f"a model of {type(config).__name__} does not go on with a text by itself")
    return config, params


class Answers:
    """Answers being decoded: one row for each copy of each prompt."""

    def __init__(
        self,
        config: ModelConfig,
        params: Any,
        prompts: Prompts,
        tokenizer,
        state: ModelState,
        sampling: Sampling,
        copies: int,
        seed: int,
        before: AnswerText | None = None,
    ):
        """Args: before: the text that the only row goes on with; default: that of its prompt."""
        self._config, self._params, self._sampling, self._stop = config, params, sampling, prompts.stop
        logits, state = prefill(config, params, prompts.rows, state)
        seen = prompts.seen(config, sampling)
        self._decoding = begin(sampling, copies, logits, state, prompts.limit, seen, prompts.stop, np.uint32(seed))
        self._step_by_step, self._copies = bool(prompts.stop_texts), copies
        self._columns = []
        self.texts = _answer_texts(prompts, tokenizer, copies)
        """The texts so far, where answers are wanted as text."""
        if before is not None:
            self.texts[0].context, self.texts[0].unfinished = list(before.context), list(before.unfinished)
        self._add(self._decoding.token[:, None])

    @property
    def new(self) -> np.ndarray:
        """[R, N] int32: the new ids, -1 after the end of a row."""
        return np.concatenate(self._columns, axis=1)

    @property
    def failed(self) -> bool:
        """Whether logits were not finite: tokens and state are then not valid."""
        return bool((self._columns[-1] == NOT_FINITE).any())

    @property
    def done(self) -> bool:
        """Whether all rows have ended."""
        return bool(np.asarray(self._decoding.done).all())

    @property
    def state(self) -> ModelState:
        """The state that has read all but the newest token of each row; gone after the next step."""
        return self._decoding.state

    def advance(self, steps: int) -> None:
        """Up to `steps` more tokens, at most CAPACITY. Raises `ValueError` if logits are not finite."""
        args = (self._config, self._sampling, self._params, self._decoding, steps, self._stop)
        columns, self._decoding = advance(*args)
        self._add(columns)  # before the tokens are there: an interrupt leaves tokens and state that belong together

    def finish(self) -> None:
        """All tokens; one by one only if their text has to be looked at."""
        while not self.done:
            self.advance(1 if self._step_by_step else CAPACITY)

    def stream(self) -> Iterator[str] | Iterator[np.ndarray]:
        """The text of the only row piece by piece, or the ids [R, 1] of all rows column by column."""
        written = 0
        while True:
            if not self.texts:
                yield self._columns[-1]
            elif len(self.texts[0].text) > written:
                yield self.texts[0].text[written:]
                written = len(self.texts[0].text)
            if self.done:
                break
            self.advance(1)
        if self.texts and (rest := self.texts[0].rest()):
            yield rest

    def _add(self, columns: jax.Array) -> None:
        self._columns.append(columns)
        columns = np.asarray(columns)
        check_rows((columns != NOT_FINITE).all(axis=1), self._copies)
        self._columns[-1] = columns = columns[:, : max(1, (columns >= 0).sum(axis=1).max())]
        _push(self.texts, columns)
        if self._step_by_step:
            stopped = np.array([text.stopped for text in self.texts])
            self._decoding = self._decoding._replace(done=self._decoding.done | stopped)


def _search(config, params, prompts, state, sampling, beams, num_return_sequences, return_state):
    """Beam search: new ids [R, N], and the state where it is wanted."""
    logits, state = prefill(config, params, prompts.rows, state)
    seen = prompts.seen(config, sampling)
    capacity = power_of_two(int(prompts.limit.max()))
    found, score = beam_search(
        config, sampling, beams, capacity, params, logits, state, prompts.limit, seen, prompts.stop
    )
    score = np.asarray(score)
    check_rows(~np.isnan(score).any(axis=1) & (score[:, 0] > IMPOSSIBLE / 2))
    number = int((score > IMPOSSIBLE / 2).sum(axis=1).min())
    check(
        number >= num_return_sequences,
        f"num_return_sequences={num_return_sequences} must be at most {number}, the number of answers that "
        f"num_beams={beams.num_beams} found",
    )
    new = np.asarray(found)[:, :num_return_sequences].reshape(-1, capacity)
    if return_state:  # a beam's own state is gone when the search ends: read the answers
        answers = [row[row >= 0][:-1] for row in new]
        state = fork(state, num_return_sequences)
        _, state = prefill(config, params, answers, state)
    return new, state


def _answer_texts(prompts: Prompts, tokenizer, copies: int) -> list[AnswerText]:
    """The still empty texts of the answers; none where ids are wanted."""
    rows = _repeat(prompts.rows, copies) if prompts.in_text else []
    return [AnswerText(tokenizer, row, prompts.stop, prompts.stop_texts) for row in rows]


def _repeat(rows: list, copies: int) -> list:
    """Each row `copies` times, copies side by side."""
    return [row for row in rows for _ in range(copies)]


def _push(texts: list[AnswerText], columns: np.ndarray) -> None:
    """Feed new ids [R, N], -1 after the end, to the texts of the rows."""
    for text, row in zip(texts, columns, strict=True) if texts else ():
        for token in row[row >= 0]:
            text.push(token)
