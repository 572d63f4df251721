"""From token ids to text while the ids still arrive."""

from collections.abc import Sequence

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what bytes decode to that are not a whole character
CONTEXT = 8  # ids of the prompt that are decoded again: with some tokenizers a token's text depends on those before it


class AnswerText:
    """The text of an answer whose ids arrive one after the other, by whole characters, up to the first stop text.

    A character of several bytes may be spread over several tokens: it comes out with the last of them, and one that is
    not whole at the end is left out. What may become a stop text is held back until it is clear.
    """

    def __init__(self, tokenizer, prompt: Sequence[int], stop_texts: Sequence[str] = ()):
        """Args: tokenizer: anything with `decode(ids)`; prompt: the ids before the answer."""
        self.text, self.stopped = "", False
        self._decode, self._stop_texts = tokenizer.decode, stop_texts
        self._context, self._new = [int(token) for token in prompt[-CONTEXT:]], []
        self._held = ""

    def push(self, token: int) -> str:
        """What one more id adds to the text."""
        if self.stopped:
            return ""
        self._new.append(int(token))
        text = self._decode(self._context + self._new)
        if text.endswith(UNFINISHED):
            return ""
        self._held += text[len(self._decode(self._context)) :]
        self._context, self._new = self._new[-CONTEXT:], []
        places = [place for place in map(self._held.find, self._stop_texts) if place >= 0]
        self.stopped = bool(places)
        return self._release(min(places) if places else len(self._held) - self._may_become_stop())

    def rest(self) -> str:
        """What was held back, at the end of the answer."""
        return "" if self.stopped else self._release(len(self._held))

    def _release(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        self.text += text
        return text

    def _may_become_stop(self) -> int:
        """How many of the last characters are the beginning of a stop text."""
        beginnings = (stop[:length] for stop in self._stop_texts for length in range(1, len(stop)))
        return max((len(text) for text in beginnings if self._held.endswith(text)), default=0)
