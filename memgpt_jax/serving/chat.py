"""Dialogues as token ids, by the chat template of a model.

The texts of the messages are encoded as plain text: what a user writes never becomes a control token.
"""

import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from memgpt_jax.config.checks import check
from memgpt_jax.data import Tokenizer

OPEN, CLOSE = "\ue0f0", "\ue0f1"
"""Private-use characters around the number of a message, which stands for its text while a template is rendered."""
MARK = re.compile(f"{OPEN}([0-9]+){CLOSE}")


class Message(NamedTuple):
    """One turn of a dialogue."""

    role: str
    text: str


class ChatTemplate:
    """The chat template of a model: it turns messages into ids."""

    def __init__(self, template: str, tokenizer: Tokenizer):
        """Args:
            template: in Jinja, as in `tokenizer_config.json`; it runs in a sandbox.
            tokenizer: with `control_ids`, the ids of special tokens by their text.

        Raises `ValueError` if the template is not valid.
        """
        from jinja2 import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals |= {"raise_exception": _refuse, "strftime_now": _now}
        try:
            self._template = environment.from_string(template)
        except TemplateError as error:
            raise ValueError(f"the chat template is not valid: {error}") from None
        self._tokenizer = tokenizer
        controls: Mapping[str, int] = getattr(tokenizer, "control_ids", {})
        self._controls = dict(controls)
        texts = sorted(controls, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, texts))) if texts else None
        names = {"bos_token": tokenizer.bos_id, "eos_token": tokenizer.eos_id, "pad_token": tokenizer.pad_id}
        by_id = {number: text for text, number in controls.items()}
        self._tokens = {name: by_id.get(number, "") if number is not None else "" for name, number in names.items()}

    def beginning(self, messages: Sequence[Message]) -> list[list[int]]:
        """The ids of a dialogue up to where the assistant answers, in parts that end with messages.

        Raises `ValueError` if the template refuses the messages.
        """
        return self._parts(messages)

    def opened(self, messages: Sequence[Message]) -> tuple[int, list[list[int]]]:
        """The token that starts the document of a dialogue, and the rest of `beginning`.

        A special token at the beginning of the template takes the place of `start_id`, as in the model's training.
        Raises `ValueError` if the template refuses the messages.
        """
        parts = self.beginning(messages)
        if self._control is None or not self._control.match(self._rendered(messages)):
            return self._tokenizer.start_id, parts
        first, *rest = parts[0]
        return first, [part for part in (rest, *parts[1:]) if part]

    def continuation(self, messages: Sequence[Message]) -> list[list[int]]:
        """The ids after an answer: its end, more messages, and the beginning of the next answer.

        Raises `ValueError` if the template refuses the messages.
        """
        return self._parts([Message("user", ""), Message("assistant", ""), *messages], after=1)

    def _parts(self, messages: Sequence[Message], after: int = -1) -> list[list[int]]:
        """The ids of a rendered dialogue, one part for each message; those after the text of message `after` alone."""
        text = self._rendered(messages)
        pieces = MARK.split(text)  # template, number, template, number, ..., template
        numbers = [int(number) for number in pieces[1::2]]
        check(
            numbers == list(range(len(messages))),
            "the chat template of the model leaves out, repeats or reorders messages: it cannot be used",
        )
        parts: list[list[int]] = []
        ids, run = [], ""
        for number, template in zip([-1, *numbers], pieces[::2], strict=True):
            if number == after:
                ids, run, parts = [], "", []
            elif number >= 0:
                run += messages[number].text
            ends_message = number > after
            for before, control in self._controls_in(template):
                run += before
                if control is not None:
                    ids += [*self._encoded(run), control]
                    run = ""
                    if ends_message:
                        parts.append(ids)
                        ids, ends_message = [], False
        last = [*ids, *self._encoded(run)]
        return [part for part in [*parts, last] if part]

    def _encoded(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text)) if text else []

    def _controls_in(self, template: str) -> list[tuple[str, int | None]]:
        """The text before each control token with its id, and the rest with None."""
        found, start = [], 0
        for match in self._control.finditer(template) if self._control else ():
            found.append((template[start : match.start()], self._controls[match.group()]))
            start = match.end()
        return [*found, (template[start:], None)]

    def _rendered(self, messages: Sequence[Message]) -> str:
        turns = [{"role": message.role, "content": f"{OPEN}{number}{CLOSE}"} for number, message in enumerate(messages)]
        try:
            return self._template.render(messages=turns, add_generation_prompt=True, tools=None, **self._tokens)
        except Exception as error:  # a template is a program
            raise ValueError(f"the chat template of the model refuses the messages: {error}") from None


def _refuse(message: str) -> Any:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _now(form: str) -> str:
    return datetime.datetime.now().strftime(form)
