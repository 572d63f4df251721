"""One thread that owns the model: it reads prompts in pieces, and decodes R slots together, one token a step."""

import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax.config.checks import check
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import Tokenizer
from memgpt_jax.generation.document import Document, continued, new_document
from memgpt_jax.generation.prefill import begin, prefill_pieces
from memgpt_jax.generation.prompts import checked_ids
from memgpt_jax.generation.sampling import NOT_FINITE, can_be_chosen_from
from memgpt_jax.generation.text import AnswerText, ids_of_text
from memgpt_jax.models import ModelState, Params
from memgpt_jax.serving.prefixes import Prefixes
from memgpt_jax.serving.prompt_scores import score_pieces
from memgpt_jax.serving.requests import Answer, BusyError, CancelledError, FailedError, Finished, Read, Request, Token
from memgpt_jax.serving.settings import EngineSettings
from memgpt_jax.serving.slots import Slots, empty, extract, insert, new_row, step, with_active, write_segment
from memgpt_jax.serving.warm_up import compile_programs
from memgpt_jax.serving.work import Work, one_piece

logger = logging.getLogger(__name__)


class Engine:
    """Decodes many requests at once. Its answers are bitwise those of each request alone.

    >>> engine = Engine(config, params, tokenizer)
    >>> engine.start()
    >>> engine.submit(Request(document=engine.new_document(), parts=[ids], deliver=print))
    """

    def __init__(
        self, config: ModelConfig, params: Params, tokenizer: Tokenizer, settings: EngineSettings | None = None
    ):
        """Args:
        config, params: the decoder.
        tokenizer: of the model.
        settings: sizes and limits.
        """
        self._device = jax.devices()[0]
        self.config, self.params, self.tokenizer = config, self.placed(params), tokenizer
        self.no_logits = self.placed(jnp.zeros((1, config.vocab_size), jnp.float32))
        """Logits before the first token. They are on the device like all other arguments of the programs."""
        self.settings = settings or EngineSettings()
        self.prefixes = Prefixes(self.settings.prefix_mb * 2**20)
        self.steps = 0
        """Decoding steps so far."""
        self.last_step = time.monotonic()
        """When the thread last did something."""
        self.failure: BaseException | None = None
        """Why the thread has ended, if it was an error."""
        self.in_call = False
        """Whether the thread does something for `call`, which may take long."""
        self.calls = 0
        """Calls of `call` and `call_in_pieces` that run or wait."""
        self._commands: queue.SimpleQueue[Request | Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._queued_answers = self._queued_tokens = 0
        self._waiting: deque[Request] = deque()
        self._reading: tuple[Request, Generator[None, None, None]] | None = None
        self._read: deque[Answer] = deque()
        self._work: deque[Work] = deque()
        self._answers: list[Answer | None] = [None] * self.settings.slots
        self._offsets = np.zeros(self.settings.slots, np.int64)
        self._seconds = 0.1
        self._slots: Slots | None = None
        self._active = np.zeros(self.settings.slots, bool)
        self._thread = threading.Thread(target=self._run, name="memgpt-engine", daemon=True)

    def start(self) -> None:
        """Compile all programs and begin to work. Blocks until then."""
        config, slots = self.config, self.placed(empty(self.config, self.settings.slots))
        state, piece_length = self.placed(self.new_document().state), self.settings.piece_length
        self._slots = compile_programs(config, self.params, state, slots, piece_length, self.no_logits)
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the requests that it has."""
        self._commands.put(None)
        self._thread.join()

    def new_document(self) -> Document:
        """A document without text."""
        return new_document(self.config, self.tokenizer)

    @property
    def most_answers(self) -> int:
        """Answers that requests may have together when nothing else is asked for."""
        return self.settings.queue_requests + self.settings.slots

    def submit(self, request: Request) -> None:
        """Queue a request, from any thread.

        Raises:
            BusyError: the queue is full.
            FailedError: the thread has ended with an error.
            ValueError: an id is not in the vocabulary, or the prompt is empty where there is nothing to continue.
        """
        ids = request.ids
        checked_ids(self.config, "token ids", np.array(ids, np.int64))
        check(bool(ids) or bool(request.document.unread), "there is no token to continue: the prompt is empty")
        with self._lock:
            answers = self._queued_answers + request.number
            tokens = self._queued_tokens + len(ids)
            free = sum(answer is None for answer in self._answers)
            is_full = answers > self.settings.queue_requests + free
            if is_full or (tokens > self.settings.queue_tokens and self._queued_tokens > 0):
                raise BusyError(max(1.0, self._seconds * self._queued_answers / self.settings.slots))
            self._refuse_after_failure()
            self._note_begin()
            self._queued_answers, self._queued_tokens = answers, tokens
            self._commands.put(request)

    def call(self, function: Callable[[], Any]) -> Future:
        """Run a function in the engine's thread between two steps. Raises the errors of `call_in_pieces`."""
        return self.call_in_pieces(one_piece(function))

    def call_in_pieces(self, pieces: Generator[None, None, Any]) -> Future:
        """`call` of a generator: each of its pieces is run between two steps, and others may be run in between.

        Raises:
            BusyError: `queue_requests` calls wait.
            FailedError: the thread has ended with an error.
        """
        future: Future = Future()
        with self._lock:
            if self.calls > self.settings.queue_requests:
                raise BusyError(1.0)
            self._refuse_after_failure()
            self._note_begin()
            self.calls += 1
            self._commands.put(Work(pieces, future))
        future.add_done_callback(self._note_end)
        return future

    def _note_end(self, _: Future) -> None:
        with self._lock:
            self.calls -= 1

    def _note_begin(self) -> None:
        """Count the time without a step, which the watchdog limits, from now on, if there has been nothing to do."""
        if not self.has_work:
            self.last_step = time.monotonic()

    def _refuse_after_failure(self) -> None:
        if self.failure is not None:
            raise FailedError(f"the engine has ended: {self.failure}")

    @property
    def busy_slots(self) -> int:
        """Slots with an answer."""
        return sum(answer is not None for answer in self._answers)

    @property
    def waiting(self) -> int:
        """Answers that have no slot yet."""
        return self._queued_answers

    @property
    def has_work(self) -> bool:
        """Whether there is something to do."""
        return bool(self.waiting or self.busy_slots or self._work)

    @property
    def is_alive(self) -> bool:
        """Whether the thread works."""
        return self._thread.is_alive()

    def placed(self, tree: Any) -> Any:
        """Arrays on the device. They are committed to it: a program is compiled again for those that are not."""
        return jax.device_put(tree, self._device)

    def _run(self) -> None:
        stopping = False
        try:
            while True:
                idle = not (self._waiting or self._reading or self._read or self.busy_slots or self._work)
                if stopping and idle:
                    return
                stopping = self._take_commands(block=idle and not stopping) or stopping
                self.last_step = time.monotonic()
                self._drop_cancelled()
                self._work_a_piece()
                self._read_a_piece()
                self._reread_a_piece()
                self._fill_slots()
                self._step()
        except BaseException as error:
            logger.exception("the engine has ended")
            with self._lock:
                self.failure = error
            self._deliver_failure(error)

    def _take_commands(self, block: bool) -> bool:
        """Queue new requests and work. True: the thread is to end."""
        ends = False
        while True:
            try:
                command = self._commands.get(block=block)
            except queue.Empty:
                return ends
            block = False
            if command is None:
                ends = True
            elif isinstance(command, Request):
                self._waiting.append(command)
            else:
                self._work.append(command)

    def _work_a_piece(self) -> None:
        """Do one piece of the work in turn."""
        if not self._work:
            return
        work = self._work[0]
        self.in_call = True
        if work.advance():
            self._work.append(work)
        self._work.popleft()
        self.last_step = time.monotonic()
        self.in_call = False

    def _drop_cancelled(self) -> None:
        """End what was cancelled, wherever it is."""
        for request in [request for request in self._waiting if request.cancelled]:
            self._waiting.remove(request)
            self._dequeue(request.number, len(request.ids))
            request.deliver(CancelledError())
        if self._reading and self._reading[0].cancelled:
            request = self._reading[0]
            self._reading = None
            self._dequeue(request.number, len(request.ids))
            request.deliver(CancelledError())
        for answer in [answer for answer in self._read if answer.request.cancelled]:
            self._read.remove(answer)
            self._dequeue(1, 0)
            answer.request.deliver(CancelledError())
        for index, answer in enumerate(self._answers):
            if answer is not None and answer.request.cancelled:
                self._answers[index] = None
                answer.request.deliver(CancelledError())
        self._set_active()

    def _dequeue(self, answers: int, tokens: int) -> None:
        with self._lock:
            self._queued_answers -= answers
            self._queued_tokens -= tokens

    def _read_a_piece(self) -> None:
        """Read one piece of the request in turn, if a slot will be free for its answer."""
        if self._reading is None:
            if not self._waiting or self._read or (self.busy_slots == len(self._answers)):
                return
            request = self._waiting.popleft()
            self._reading = request, self._reading_of(request)
        request, pieces = self._reading
        try:
            next(pieces)
        except StopIteration:
            self._reading = None
            self._dequeue(0, len(request.ids))
        except Exception as error:
            self._reading = None
            self._dequeue(request.number, len(request.ids))
            if not isinstance(error, FailedError | ValueError):
                logger.exception("a prompt could not be read")
            request.deliver(error)

    def _reading_of(self, request: Request) -> Generator[None, None, None]:
        """Read the prompt of a request, and queue its answers; yields after each piece."""
        document, ids, scores, cached = request.document, request.ids, [], 0
        tokens = [*document.unread, *ids]
        state = self.placed(document.state)
        if request.score_prompt:
            number = request.options.alternatives
            scores, state = yield from score_pieces(self.config, self.params, tokens, state, number)
            scores = scores[len(document.unread) :]
        else:
            start, state = self._known_prefix(request, state)
            cached = max(0, start - len(document.unread))
            for end in request.ends:
                if end > start:
                    state = yield from self._pieces(tokens[start:end], state)
                    start = end
                    if request.is_new and end < len(tokens) - 1:
                        self.prefixes.keep(request.owner, tokens[:end], state)
        before = continued(document, self.tokenizer, state, ids, tokens[-1:])
        if request.max_new_tokens == 0:
            self._dequeue(request.number, 0)
            request.deliver(Read(before._replace(state=jax.device_get(state)), cached, scores))
            return
        request.deliver(Read(None, cached, scores))
        for number in range(request.number):
            text = AnswerText(self.tokenizer, before.context, stop=request.stop_ids, stop_texts=request.stop_texts)
            text.unfinished = list(before.unfinished)
            self._read.append(Answer(request, number, before, text))

    def _known_prefix(self, request: Request, state: ModelState) -> tuple[int, ModelState]:
        """The number of tokens whose state is known, and that state; 0 and the given state if there are none."""
        if not request.is_new:
            return 0, state
        tokens = [*request.document.unread, *request.ids]
        found = self.prefixes.longest(request.owner, tokens, request.ends[:-1])
        return (0, state) if found is None else (found[0], self.placed(found[1]))

    def _pieces(self, tokens: list[int], state: ModelState) -> Generator[None, None, ModelState]:
        """Read tokens, and return the state after them; yields after each piece."""
        prompt, size = [np.array(tokens, np.int32)], self.settings.piece_length
        for logits, after in prefill_pieces(self.config, self.params, prompt, state, size, self.no_logits):
            if not bool(can_be_chosen_from(logits).all()):
                raise FailedError("the logits of the prompt are not finite")
            state = after
            yield
        return state

    def _fill_slots(self) -> None:
        """Put answers whose prompt has been read into free slots."""
        free = [index for index, answer in enumerate(self._answers) if answer is None]
        for index in free[: len(self._read)]:
            answer = self._read.popleft()
            with self._lock:
                self._answers[index] = answer
                self._queued_answers -= 1
            try:
                self._put(index, answer)
            except Exception as error:  # of this request alone
                self._fail(index, error)

    def _put(self, index: int, answer: Answer) -> None:
        document = answer.before
        seen = np.zeros(self.config.vocab_size, bool)
        seen[list(document.penalized_ids)] = True
        state = begin(self.config, self.params, document.state)
        options = answer.request.options.row(answer.number, self.config.vocab_size)
        row = new_row(self.config, state, document.unread[0], seen, options)
        assert self._slots is not None
        self._slots = insert(self._slots, np.int32(index), row)
        self._active[index] = True  # as in the row
        self._offsets[index] = _offset(document.state)
        if not answer.request.keep and not answer.request.stop_texts:
            answer.before = document._replace(state=())  # pyright: ignore[reportArgumentType] # not needed any more

    def _step(self) -> None:
        """One decoding step of all slots."""
        busy = [index for index, answer in enumerate(self._answers) if answer is not None and not answer.rereading]
        if not busy:
            return
        assert self._slots is not None
        chosen, self._slots = step(self.config, self.params, self._slots)
        self._offsets[busy] += 1
        for index in busy:
            if self._offsets[index] == self.config.segment_length:
                assert self._slots is not None
                self._slots = write_segment(self.config, self.params, self._slots, np.int32(index))
                self._offsets[index] = 0
        self.steps += 1
        chosen = jax.device_get(chosen)
        for index in busy:
            answer = self._answers[index]
            assert answer is not None
            token = int(chosen.token[index])
            if token == NOT_FINITE:
                self._fail(index, FailedError("the logits of the answer are not finite"))
                continue
            number = answer.request.options.alternatives
            alternatives = list(
                zip(chosen.top_ids[index][:number].tolist(), chosen.top_logprobs[index][:number].tolist(), strict=True)
            )
            try:
                self._add(index, answer, token, float(chosen.logprob[index]), alternatives)
            except Exception as error:  # of this request alone
                self._fail(index, error)
        self._set_active()

    def _fail(self, index: int, error: Exception) -> None:
        """End an answer, and the others of its request, with an error."""
        answer = self._answers[index]
        assert answer is not None
        self._answers[index] = None
        if not isinstance(error, FailedError):
            logger.error("an answer could not be written", exc_info=error)
        answer.request.cancelled = True
        answer.request.deliver(error)

    def _add(
        self, index: int, answer: Answer, token: int, logprob: float, alternatives: list[tuple[int, float]]
    ) -> None:
        """Append a token to an answer, and end it if it is the last."""
        request, is_stop = answer.request, token in answer.request.stop_ids
        answer.ids.append(token)
        offset = answer.text.length
        text = answer.text.push(token)
        request.deliver(Token(answer.number, token, text, logprob, alternatives, offset))
        ends = is_stop or answer.text.stopped
        if not ends and len(answer.ids) < request.max_new_tokens:
            return
        if request.keep and answer.text.stopped:
            answer.rereading = self._reread(answer)
            return
        document = self._document_after(index, answer, is_stop) if request.keep else None
        rest, ids = answer.text.rest(), answer.ids[:-1] if is_stop else answer.ids
        self._finish(index, answer, Finished(answer.number, rest, "stop" if ends else "length", document, ids))

    def _finish(self, index: int, answer: Answer, end: Finished) -> None:
        self._answers[index] = None
        took = time.monotonic() - answer.request.arrived
        self._seconds += 0.1 * (took - self._seconds)
        answer.request.deliver(end)

    def _document_after(self, index: int, answer: Answer, is_stop: bool) -> Document:
        """The document with an answer that no stop text has ended. It has read exactly what was returned."""
        assert self._slots is not None
        state, ids = extract(self._slots.state, np.int32(index)), answer.ids
        unread, ids = ([], ids[:-1]) if is_stop else (ids[-1:], ids)
        return continued(answer.before, self.tokenizer, jax.device_get(state), ids, unread, answer.text)

    def _reread(self, answer: Answer) -> Generator[None, None, Document]:
        """The document with the text of an answer before a stop text; yields after each piece that is read."""
        before = answer.before
        ids = ids_of_text(self.tokenizer, before.context, before.unfinished, answer.ids, answer.text.text)
        tokens, state = [*before.unread, *ids], before.state
        if len(tokens) > 1:
            state = yield from self._pieces(tokens[:-1], state)
        return continued(before, self.tokenizer, jax.device_get(state), ids, tokens[-1:])

    def _reread_a_piece(self) -> None:
        """Read one piece of the oldest answer that a stop text has ended."""
        found = [(index, answer) for index, answer in enumerate(self._answers) if answer and answer.rereading]
        if not found:
            return
        index, answer = min(found, key=lambda each: each[1].request.arrived)
        assert answer.rereading is not None
        try:
            next(answer.rereading)
        except StopIteration as end:
            self._finish(index, answer, Finished(answer.number, "", "stop", end.value, answer.ids))
        except Exception as error:  # of this request alone
            self._fail(index, error)

    def _set_active(self) -> None:
        """Tell the device which rows have an answer; the others neither read nor write."""
        active = np.array([answer is not None and not answer.rereading for answer in self._answers])
        assert self._slots is not None
        if not np.array_equal(active, self._active):
            self._slots, self._active = with_active(self._slots, active), active

    def _deliver_failure(self, error: BaseException) -> None:
        """Tell all requests and calls that the thread has ended."""
        failure = FailedError(f"the engine has ended: {error}")
        while not self._commands.empty():
            command = self._commands.get()
            if isinstance(command, Request):
                self._waiting.append(command)
            elif command is not None:
                self._work.append(command)
        for work in self._work:
            work.fail(failure)
        requests = [*self._waiting, *(answer.request for answer in self._read)]
        requests += [self._reading[0]] if self._reading else []
        requests += [answer.request for answer in self._answers if answer is not None]
        for request in {id(request): request for request in requests}.values():
            request.deliver(failure)


def _offset(state: ModelState) -> int:
    """Tokens of the open segment."""
    streams = [layer.stream for layer in state.layers if layer.stream]
    return int(np.asarray(streams[0].offset)[0]) if streams else 0
