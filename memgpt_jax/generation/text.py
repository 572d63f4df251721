"""From token ids to text while the ids still arrive."""

from collections.abc import Sequence

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what bytes decode to that are not a whole character
UNFINISHED_LENGTH = 3  # bytes at most of an incomplete character; some tokenizers decode each to U+FFFD
CONTEXT = 8  # ids before the new ones that are decoded with them: tokenizers often decode a first token differently
LONGEST_UNFINISHED = 32  # ids


class AnswerText:
    """The text of an answer whose ids arrive one after the other, by whole characters, up to the first stop text.

    The ids of the prompt and of the answer are decoded together; the text of the answer is the part after the text of
    the prompt. A character of several bytes may be spread over several tokens: it is returned with the last of them,
    and an incomplete one at the end is left out. Text that may be the beginning of a stop text is held back until that
    is known.

    Each token is decoded with a few ids before it, enough that some text precedes its own, so the cost of a token does
    not grow with the length of the answer.
    """

    def __init__(
        self, tokenizer, prompt: Sequence[int], stop: Sequence[int] = (), stop_texts: Sequence[str] = (), unfinished=()
    ):
        """Args: as below.

        tokenizer: has `decode(ids)` and `vocab_size`; larger ids have no text. Without `unfinished_bytes(ids)`, all
            U+FFFD at the end count as an incomplete character.
        prompt: the ids before the answer.
        stop: ids that end the answer and are no part of its text.
        unfinished: ids at the end of the prompt that are a character's beginning.
        """
        self.text, self.stopped = "", False
        self._tokenizer, self._stop, self._stop_texts = tokenizer, set(map(int, stop)), stop_texts
        self._held = ""
        self.context = self._shortened([int(token) for token in prompt])
        """The last ids whose text has been returned or held back."""
        self.unfinished = [int(token) for token in unfinished]
        """The ids after `context`, whose text is not complete."""

    def push(self, token: int) -> str:
        """What one more id adds to the text."""
        token = int(token)
        if self.stopped or token in self._stop or not 0 <= token < self._tokenizer.vocab_size:
            return ""
        before, ids = self._decode_unfinished(self.unfinished), [*self.unfinished, token]
        text = self._decode_unfinished(ids)
        if text == before and not self._tokenizer.decode([token, token]):  # a special id: it changes nothing
            return ""
        settled = self._settled(text, ids)
        self._held += text[self._settled(before, self.unfinished) : settled]
        self.unfinished = ids
        if settled == len(text):
            self.context, self.unfinished = self._shortened(self.context + ids), []
        elif len(ids) > LONGEST_UNFINISHED:
            self._move_context(text, settled)
        places = [place for place in map(self._held.find, self._stop_texts) if place >= 0]
        self.stopped = bool(places)
        return self._release(min(places) if places else len(self._held) - self._may_become_stop())

    def rest(self) -> str:
        """What was held back, at the end of the answer."""
        return "" if self.stopped else self._release(len(self._held))

    def _decode_unfinished(self, ids: list[int]) -> str:
        """The text of ids after the context."""
        decode = self._tokenizer.decode
        return decode(self.context + ids)[len(decode(self.context)) :] if ids else ""

    def _settled(self, text: str, ids: list[int]) -> int:
        """The number of characters of the text of ids that no further ids can change."""
        unfinished_bytes = getattr(self._tokenizer, "unfinished_bytes", None)
        longest = len(ids) * UNFINISHED_LENGTH if unfinished_bytes is None else UNFINISHED_LENGTH
        if unfinished_bytes is not None and not unfinished_bytes(ids):
            longest = 0
        return max(len(text.rstrip(UNFINISHED)), len(text) - longest)

    def _shortened(self, ids: list[int]) -> list[int]:
        """The last `CONTEXT` ids, or more if these have no text."""
        length = CONTEXT
        while length < len(ids) and not self._tokenizer.decode(ids[-length:]):
            length *= 2
        return ids[-length:]

    def _move_context(self, text: str, settled: int) -> None:
        """Move ids of broken characters to the context, up to a place where no character is split."""
        context, ids = self.context, self.unfinished
        for cut in range(len(ids) - UNFINISHED_LENGTH - 1, len(ids) - 2 * UNFINISHED_LENGTH - 2, -1):
            head = self._decode_unfinished(ids[:cut])
            self.context = self._shortened(context + ids[:cut])
            if head + self._decode_unfinished(ids[cut:]) == text:
                self.unfinished = ids[cut:]
                self._held += text[settled : len(head)]
                return
            self.context = context

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        self.text += text
        return text

    def _may_become_stop(self) -> int:
        """How many of the last characters are the beginning of a stop text."""
        beginnings = (stop[:length] for stop in self._stop_texts for length in range(1, len(stop)))
        return max((len(text) for text in beginnings if self._held.endswith(text)), default=0)
