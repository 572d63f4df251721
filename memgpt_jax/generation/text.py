"""From token ids to text while the ids still arrive."""

from collections.abc import Sequence

UNFINISHED = "\N{REPLACEMENT CHARACTER}"  # what bytes decode to that are not a whole character
LONGEST_CHARACTER = 4  # ids, one for each byte
CONTEXT = 8  # ids of the prompt that are decoded again: with some tokenizers a token's text depends on those before it


class AnswerText:
    """The text of an answer whose ids arrive one after the other, by whole characters, up to the first stop text.

    A character of several bytes may be spread over several tokens: it comes out with the last of them, and one that is
    not whole at the end is left out. What may become a stop text is held back until it is clear.
    """

    def __init__(
        self, tokenizer, prompt: Sequence[int], stop: Sequence[int] = (), stop_texts: Sequence[str] = (), unfinished=()
    ):
        """Args: as below.

        tokenizer: has `decode(ids)` and `vocab_size`; ids beyond it stand for no text.
        prompt: the ids before the answer.
        stop: ids that end the answer and are no part of its text.
        unfinished: ids at the end of the prompt that are a character's beginning.
        """
        self.text, self.stopped = "", False
        self._tokenizer, self._stop, self._stop_texts = tokenizer, set(map(int, stop)), stop_texts
        self._held = ""
        self.context = [int(token) for token in prompt][-CONTEXT:]
        """The last ids whose text is out."""
        self.unfinished = [int(token) for token in unfinished]
        """The ids after them, not yet a whole character."""

    def push(self, token: int) -> str:
        """What one more id adds to the text."""
        if self.stopped or token in self._stop or token >= self._tokenizer.vocab_size:
            return ""
        self.unfinished.append(int(token))
        text = self._tokenizer.decode(self.context + self.unfinished)
        if text.endswith(UNFINISHED) and len(self.unfinished) < LONGEST_CHARACTER:
            return ""
        self._held += text[len(self._tokenizer.decode(self.context)) :]
        self.context, self.unfinished = self.unfinished[-CONTEXT:], []
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
