"""A text that goes on: read, answered, forked, saved and taken up again, its memory live throughout."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from memgpt_jax import models
from memgpt_jax.checks import check
from memgpt_jax.config import ModelConfig
from memgpt_jax.config_json import differences, from_json, to_json
from memgpt_jax.generation.api import Answers, config_and_params
from memgpt_jax.generation.prefill import prefill
from memgpt_jax.generation.prompts import Prompts, check_tokenizer, ids_of
from memgpt_jax.generation.sampling import Sampling
from memgpt_jax.generation.text import AnswerText
from memgpt_jax.models import MemGPT, ModelState

FILE = "session.json"


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

        Raises `ValueError` if the tokenizer has more ids than the model.
        """
        self.config, self.params = config_and_params(model)
        check_tokenizer(self.config, tokenizer)
        self.tokenizer = tokenizer
        self._stream = None
        self.reset()

    def reset(self) -> None:
        """Forget everything and begin a new document."""
        self._end_stream()
        self.state = models.init_state(self.config, batch_size=1)
        self.unread, self.num_tokens, self.said = [self.tokenizer.document_id], 1, frozenset()
        self._text = AnswerText(self.tokenizer, [])  # where its text stands, perhaps inside a character

    def feed(self, text: str) -> None:
        """Read a text of any length, as what comes next in the document."""
        self._end_stream()
        new = ids_of(self.config, "token ids", np.array(self.tokenizer.encode(text), np.int64)).tolist()
        tokens = self.unread + new
        if len(tokens) > 1:
            _, self.state = prefill(self.config, self.params, [np.array(tokens[:-1], np.int32)], self.state)
        self.unread = tokens[-1:]
        self.num_tokens, self.said = self.num_tokens + len(new), self.said.union(new)
        if new:
            self._text = AnswerText(self.tokenizer, new)

    def generate(
        self,
        *,
        max_new_tokens: int,
        stop: int | str | Sequence[int | str] = (),
        seed: int = 0,
        stream: bool = False,
        **sampling,
    ) -> str | Iterator[str]:
        """Go on with the document, and return what is new.

        `sampling` are the options of `Sampling`: temperature, top_k, top_p, min_p, repetition_penalty. The end of the
        document ends the answer, too; after it, `ValueError`: feed or reset first. With `stream`, the text comes in
        pieces; if you stop taking them, or use the session otherwise, the document ends with the last one taken.
        """
        self._end_stream()
        check(bool(self.unread), "the document has ended: feed() what follows, or reset()")
        stops = [stop] if isinstance(stop, str) or np.ndim(stop) == 0 else list(stop)
        prompts = Prompts(
            self.config,
            [self.unread],
            max_new_tokens=max_new_tokens,
            stop=[*stops, self.tokenizer.document_id],
            in_text=True,
            said=self.said,
        )
        answers = Answers(
            self.config, self.params, prompts, self.tokenizer, self.state, Sampling(**sampling), 1, seed, self._text
        )
        self._stream = self._answer(answers)
        return self._stream if stream else "".join(self._stream)

    def _answer(self, answers: Answers) -> Iterator[str]:
        try:
            yield from answers.stream()
        finally:
            new = answers.new[0]
            new = new[new >= 0].tolist()
            ended = new[-1] == self.tokenizer.document_id
            self.state, self.unread, self._text = answers.state, [] if ended else new[-1:], answers.texts[0]
            self.num_tokens, self.said = self.num_tokens + len(new) - ended, self.said.union(new)
            self._stream = None

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
        """Write the session into a folder; one that is there already is replaced when the new one is whole."""
        import orbax.checkpoint as ocp

        self._end_stream()
        folder = Path(path).expanduser().absolute()
        check(not folder.exists() or (folder / FILE).is_file(), f"{folder} exists and is not a session")
        values = {"config": to_json(self.config), "tokenizer": self.tokenizer.fingerprint}
        values |= {"unread": self.unread, "num_tokens": self.num_tokens, "said": sorted(self.said)}
        values |= {"context": self._text.context, "unfinished": self._text.unfinished}
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            new = Path(temporary) / "new"
            with ocp.StandardCheckpointer() as checkpointer:
                checkpointer.save(new / "state", jax.tree.leaves(self.state))
            (new / FILE).write_text(json.dumps(values, indent=2) + "\n")
            if folder.exists():
                folder.rename(Path(temporary) / "old")
            new.rename(folder)

    @classmethod
    def load(cls, path: str | Path, model: MemGPT | tuple[ModelConfig, Any], tokenizer) -> "Session":
        """The session that `save` wrote, with the model and the tokenizer that it had.

        Raises `ValueError` if there is none, or if it is of another model config or tokenizer.
        """
        import orbax.checkpoint as ocp

        folder = Path(path).expanduser().absolute()
        check((folder / FILE).is_file(), f"there is no session in {folder}")
        values = json.loads((folder / FILE).read_text())
        session = cls(model, tokenizer)
        saved = from_json(values["config"], (ModelConfig,)).run_like(session.config)
        changed = differences(saved, session.config)
        check(not changed, f"the session in {folder} is of another model:\n  " + "\n  ".join(changed))
        check(values["tokenizer"] == tokenizer.fingerprint, f"the session in {folder} is of another tokenizer")
        expected, structure = jax.tree.flatten(jax.eval_shape(lambda: models.init_state(session.config, 1)))
        with ocp.StandardCheckpointer() as checkpointer:
            session.state = jax.tree.unflatten(structure, checkpointer.restore(folder / "state", expected))
        session.unread, session.num_tokens = values["unread"], values["num_tokens"]
        session.said = frozenset(values["said"])
        session._text = AnswerText(tokenizer, values["context"], unfinished=values["unfinished"])
        return session
