"""A text that goes on: read, answered, forked, saved and taken up again, its memory live throughout."""

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from memgpt_jax import models
from memgpt_jax.config.checks import check, whole
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.config.serialization import differences, from_json, to_json
from memgpt_jax.files import checksums
from memgpt_jax.files.json_files import read_json
from memgpt_jax.files.replacement import recover_folder, replacing_folder
from memgpt_jax.generation.api import Answers, config_and_params
from memgpt_jax.generation.prefill import prefill
from memgpt_jax.generation.prompts import Prompts, check_length, check_tokenizer, ends_of, ids_of
from memgpt_jax.generation.sampling import Sampling
from memgpt_jax.generation.text import AnswerText
from memgpt_jax.models import MemGPT, ModelState

FILE, STATE = "session.json", "state.safetensors"


class Session:
    """One document in the making.

    >>> session = mg.Session(model, tokenizer)
    >>> session.feed("To whom it may concern,")
    >>> draft = session.fork()
    >>> session.generate(max_new_tokens=64), draft.generate(max_new_tokens=64, temperature=0.8)

    However much is fed, the state has the size of one window and one memory a layer.
    """

    state: ModelState
    """What all tokens but those in `unread` left behind."""
    unread: list[int]
    """The last tokens: the model reads them when it needs to know what follows."""
    num_tokens: int
    """Tokens of the document so far."""
    said: frozenset[int]
    """The tokens that the document holds: a repetition penalty falls on them."""

    def __init__(self, model: MemGPT | tuple[ModelConfig, Any], tokenizer):
        """Args: model: a `MemGPT` or `(config, params)`; tokenizer: as in `memgpt_jax.data.Tokenizer`.

        Raises `ValueError` if the tokenizer has ids of text that the model has not.
        """
        self.config, self.params = config_and_params(model)
        check_tokenizer(self.config, tokenizer)
        self.tokenizer, self._ends = tokenizer, ends_of(tokenizer, model)
        self._stream = None
        self.reset()

    def reset(self) -> None:
        """Forget everything and begin a new document."""
        self._end_stream()
        self.state = models.init_state(self.config, batch_size=1)
        self.unread, self.num_tokens, self.said = [self.tokenizer.start_id], 1, frozenset()
        self._text = AnswerText(self.tokenizer, [])  # where its text stands, perhaps inside a character

    def feed(self, text: str) -> None:
        """Read a text of any length as the continuation of the document.

        Raises `ValueError`, with the session unchanged, if the text does not fit the model or logits are not finite.
        """
        self._end_stream()
        check(isinstance(text, str), f"text must be a str, got {type(text).__name__}")
        new = ids_of(self.config, "token ids", np.array(self.tokenizer.encode(text), np.int64)).tolist()
        check_length(self.config, self.num_tokens + len(new))
        tokens = self.unread + new
        if len(tokens) > 1:
            _, self.state = prefill(self.config, self.params, [np.array(tokens[:-1], np.int32)], self.state)
        self.unread = tokens[-1:]
        self.num_tokens, self.said = self.num_tokens + len(new), self.said.union(new)
        self._text = AnswerText(self.tokenizer, [*self._text.context, *self._text.unfinished, *new])

    def generate(
        self,
        *,
        max_new_tokens: int,
        stop: int | str | Sequence[int | str] = (),
        ignore_eos: bool = False,
        seed: int = 0,
        stream: bool = False,
        **sampling,
    ) -> str | Iterator[str]:
        """Continue the document and return the new text, which is the one that `mg.generate` adds to the same document.

        `sampling` are the options of `Sampling`: temperature, top_k, top_p, min_p, repetition_penalty. The end of the
        document (as in `mg.generate`) also ends the answer, unless `ignore_eos`; after it, call `feed` or `reset`
        first. With `stream`, the text comes in pieces; if you stop iterating, or use the session in another way, the
        document ends with the last piece that was returned.

        Raises `ValueError` for options out of range, after the end of the document, and if logits are not finite, which
        leaves the session as it was before the answer.
        """
        self._end_stream()
        check(bool(self.unread), "the document has ended: feed() what follows, or reset()")
        check(isinstance(ignore_eos, bool), f"ignore_eos must be True or False, got {ignore_eos!r}")
        ends = [] if ignore_eos else self._ends
        prompts = Prompts(
            self.config,
            [self.unread],
            max_new_tokens=max_new_tokens,
            stop=stop,
            ends=ends,
            in_text=True,
            said=self.said,
        )
        check_length(self.config, self.num_tokens + int(prompts.limit[0]))
        options, seed = Sampling(**sampling), whole("seed", seed, 0, 2**32 - 1)
        answers = Answers(self.config, self.params, prompts, self.tokenizer, self.state, options, 1, seed, self._text)
        self._stream = self._answer(answers, ends)
        return self._stream if stream else "".join(self._stream)

    def _answer(self, answers: Answers, ends: list[int]) -> Iterator[str]:
        try:
            yield from answers.stream()
        finally:
            if not answers.failed:
                self._take(answers, ends)
            self._stream = None

    def _take(self, answers: Answers, ends: list[int]) -> None:
        new = answers.new[0]
        new = new[new >= 0].tolist()
        ended = new[-1] in ends
        self.state, self.unread, self._text = answers.state, [] if ended else new[-1:], answers.texts[0]
        said = new[:-1] if ended else new
        self.num_tokens, self.said = self.num_tokens + len(said), self.said.union(said)

    def _end_stream(self) -> None:
        """What was taken of a streamed answer stands; the rest is not written."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def fork(self) -> "Session":
        """A second session that goes on from here by itself."""
        self._end_stream()
        other = object.__new__(Session)
        other.__dict__.update(self.__dict__, unread=list(self.unread))
        return other

    def memory(self) -> list[dict[str, Any]]:
        """Occupancy, write gates, ages and bytes of each layer's memory; empty for a layer without one."""
        blocks = models.merge(self.config, self.params).blocks
        layers = zip(blocks, self.state.layers, strict=True)
        measured = [block.memory_layer.memory.stats(s.memory.memory) if s.memory else {} for block, s in layers]
        return jax.tree.map(lambda x: np.asarray(x).tolist(), measured)

    def save(self, path: str | Path) -> None:
        """Write the session into a folder: `session.json`, `state.safetensors` and their checksums.

        A session that is there already is replaced when the new one is whole.

        Raises `ValueError` if the folder holds something else, or cannot be written; then it stays as it was.
        """
        from safetensors.numpy import save

        self._end_stream()
        folder = Path(path).expanduser().absolute()
        values = {"config": to_json(self.config), "tokenizer": self.tokenizer.fingerprint}
        values |= {"unread": self.unread, "num_tokens": self.num_tokens, "said": sorted(self.said)}
        values |= {"context": self._text.context, "unfinished": self._text.unfinished}
        arrays = {name: np.ascontiguousarray(leaf) for name, leaf in _named(self.state).items()}
        with _readable_errors(f"the session cannot be written into {folder}"):
            recover_folder(folder)
            check(not folder.exists() or (folder / FILE).is_file(), f"{folder} exists and is not a session")
            with replacing_folder(folder) as new:
                (new / STATE).write_bytes(save(arrays))
                (new / FILE).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
                checksums.record_all(new)

    @classmethod
    def load(cls, path: str | Path, model: MemGPT | tuple[ModelConfig, Any], tokenizer) -> "Session":
        """The session that `save` wrote, with the model and the tokenizer that it had.

        Raises `ValueError` if there is none, it cannot be read, or it is of another model config or tokenizer;
        `DamagedError`, which is one, if a file is not as it was written.
        """
        folder = Path(path).expanduser().absolute()
        with _readable_errors(f"the session in {folder} cannot be read"):
            recover_folder(folder)
            check((folder / FILE).is_file(), f"there is no session in {folder}")
            checksums.verify(folder)
            values = read_json(folder / FILE)
            check((folder / STATE).is_file(), f"{folder} holds no {STATE}: an earlier version of the library wrote it")
            content = (folder / STATE).read_bytes()
        session = cls(model, tokenizer)
        saved = from_json(values["config"], (ModelConfig,)).run_like(session.config)
        changed = differences(saved, session.config)
        check(not changed, f"the session in {folder} is of another model:\n  " + "\n  ".join(changed))
        check(values["tokenizer"] == tokenizer.fingerprint, f"the session in {folder} is of another tokenizer")
        session.state = _state(folder, content, session.state)
        session.unread, session.num_tokens = values["unread"], values["num_tokens"]
        session.said = frozenset(values["said"])
        session._text = AnswerText(tokenizer, values["context"], unfinished=values["unfinished"])
        return session


def _named(state: ModelState) -> dict[str, Any]:
    """The arrays of a state by their paths."""
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in jax.tree.leaves_with_path(state)}


def _state(folder: Path, content: bytes, like: ModelState) -> ModelState:
    """The state in a safetensors file, with the shapes and types of the state `like`."""
    from safetensors import SafetensorError, deserialize

    try:
        found = {name: (tuple(array["shape"]), array["data"]) for name, array in deserialize(content)}
    except SafetensorError as error:
        raise checksums.DamagedError(f"{folder / STATE} cannot be read: {error}") from None
    wanted = _named(like)
    sizes = {name: (x.shape, x.nbytes) for name, x in wanted.items()}
    fits = sizes == {name: (shape, len(data)) for name, (shape, data) in found.items()}
    check(fits, f"{folder / STATE} is not the state of such a model: its arrays have other names or shapes")
    arrays = [np.frombuffer(found[name][1], x.dtype).reshape(x.shape) for name, x in wanted.items()]
    return jax.tree.unflatten(jax.tree.structure(like), map(jnp.asarray, arrays))


@contextlib.contextmanager
def _readable_errors(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ValueError(f"{what}: {error}") from error
