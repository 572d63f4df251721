"""The files of a tokenizer: the file that defines it, and the files beside it that name its special tokens."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from memgpt_jax.files import checksums
from memgpt_jax.files.json_files import json_object
from memgpt_jax.files.saved_files import replacing_files

JSON_FILE, MODEL_FILE = "tokenizer.json", "tokenizer.model"
DEFINING = (JSON_FILE, MODEL_FILE, "spiece.model", "sentencepiece.bpe.model")
"""The files that define a tokenizer, in order of preference."""
UNREAD = ("vocab.json", "merges.txt", "vocab.txt")
"""Files of other libraries that define the same tokenizer in another format; they are not read."""
CONFIG, MAP, ADDED = "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"
GENERATION = "generation_config.json"
TEMPLATE, TEMPLATE_JSON = "chat_template.jinja", "chat_template.json"
BESIDE = (CONFIG, MAP, ADDED, TEMPLATE, TEMPLATE_JSON, GENERATION)
"""The files beside it; saving writes them back unchanged."""
OF_TOKENIZERS = frozenset((*DEFINING, *UNREAD, *BESIDE))
"""All files that may belong to a tokenizer; a save removes those of the previous tokenizer."""
ROLES = ("bos", "eos", "pad")
LARGEST_ID = (1 << 22) - 1

logger = logging.getLogger(__name__)


def write_tokenizer(folder: str | Path, files: Mapping[str, bytes]) -> None:
    """Write the files of one tokenizer into a folder, made if missing, and remove the files of any other tokenizer.

    Each file is replaced atomically, after all of them are written under temporary names; `SHA256SUMS` records them.
    """
    with replacing_files(Path(folder), OF_TOKENIZERS.__contains__) as new:
        for name, content in files.items():
            (new / name).write_bytes(content)


def refuse_surrogates(text: str) -> None:
    """Raise `ValueError` if a text holds half a surrogate pair, which UTF-8 cannot express."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the text holds the lone surrogate U+{ord(text[error.start]):04X} at character {error.start}, which is no "
            "character: remove it"
        ) from None


def sentinels(ids: Mapping[str, int]) -> tuple[int, ...]:
    """The ids of T5's sentinels `<extra_id_0>`, `<extra_id_1>`, ..., up to the first that is absent."""
    found: list[int] = []
    while (token := ids.get(f"<extra_id_{len(found)}>")) is not None:
        found.append(token)
    return tuple(found)


def unfinished(ending: bytes) -> bytes:
    """The bytes of an incomplete UTF-8 character at the end of a text; b"" if there is none."""
    for start in range(max(0, len(ending) - 3), len(ending)):
        first, partial = ending[start], ending[start:]
        missing = 1 + (first >= 0xE0) + (first >= 0xF0) - len(partial) + 1
        if first >= 0xC2 and missing > 0 and any(_is_text(partial + last * missing) for last in (b"\x80", b"\xbf")):
            return partial
    return b""


def _is_text(content: bytes) -> bool:
    try:
        return bool(content.decode("utf-8"))
    except UnicodeDecodeError:
        return False


class Roles(NamedTuple):
    """Ids of the tokens that start, end and pad texts; None: there is none."""

    bos_id: int | None
    eos_id: int | None
    pad_id: int | None
    stop_ids: tuple[int, ...]


class Settings:
    """The files beside a tokenizer, kept byte for byte, and the special tokens that they name."""

    def __init__(self, files: Mapping[str, bytes] | None = None):
        """Args: files: the contents of files in `BESIDE`, by name. Raises `ValueError` if one is damaged."""
        self.files = dict(files or {})
        values = {n: json_object(n, self.files[n]) for n in (CONFIG, MAP, ADDED, GENERATION) if n in self.files}
        self._named = [(name, values[name]) for name in (CONFIG, MAP) if name in values]
        self._generation: dict[str, Any] = values.get(GENERATION, {})
        self.added = self._added(values)
        """Tokens that were added to a vocabulary: {text: (id, whether it is special)}."""

    @classmethod
    def of_folder(cls, folder: Path) -> "Settings":
        """The settings of a folder. Raises `ValueError` that names a damaged file."""
        checksums.verify(folder, BESIDE)
        return cls({name: (folder / name).read_bytes() for name in BESIDE if (folder / name).is_file()})

    @classmethod
    def naming(cls, stop_ids: tuple[int, ...] = (), **values) -> "Settings":
        """Settings from values of tokenizer_config.json.

        Args:
            stop_ids: all ids that end a text, if there are others than `eos_token`.
            values: the values; None: absent.
        """
        values = {name: value for name, value in values.items() if value is not None}
        contents = {CONFIG: {"tokenizer_class": "PreTrainedTokenizerFast"} | values}
        if stop_ids:
            contents[GENERATION] = {"eos_token_id": list(stop_ids)}
        return cls({name: (json.dumps(content, indent=2) + "\n").encode() for name, content in contents.items()})

    def token(self, name: str) -> str | None:
        """The text of a token such as `eos_token`, if a file names one."""
        return next(filter(None, (_text(file, name, values.get(name)) for file, values in self._named)), None)

    def special(self) -> list[str]:
        """The texts of all tokens that the files declare as special."""
        texts = [token for token, (_, special) in self.added.items() if special]
        for file, values in self._named:
            texts += [_text(file, name, value) for name, value in values.items() if _names_a_token(name, value)]
            for name in ("additional_special_tokens", "extra_special_tokens"):
                more = values.get(name) or []
                if not isinstance(more, list | dict):
                    raise ValueError(f"{file}: {name} must be a list of tokens, got {more!r}")
                texts += [_text(file, name, value) for value in (more.values() if isinstance(more, dict) else more)]
        return [text for text in texts if text]

    @property
    def chat_template(self) -> str | None:
        """The template of dialogues: `chat_template.jinja`, else that of tokenizer_config.json or chat_template.json.

        Of several named templates, that of the name `default`.
        """
        if TEMPLATE in self.files:
            return self.files[TEMPLATE].decode("utf-8", "replace")
        contents = [values for _, values in self._named]
        if TEMPLATE_JSON in self.files:
            contents.append(json_object(TEMPLATE_JSON, self.files[TEMPLATE_JSON]))
        for values in contents:
            found = values.get("chat_template")
            if isinstance(found, list):
                found = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
                found = found.get("default")
            if isinstance(found, str):
                return found
        return None

    def roles(self, special: Mapping[str, int], size: int, own: Mapping[str, int]) -> Roles:
        """The ids of the named tokens.

        For each role, the first of: the token in tokenizer_config.json or special_tokens_map.json (null: none); the id
        in `own`; the first special id in generation_config.json, whose `eos_token_id` are all stop ids. A token
        that is not in the vocabulary is ignored with a warning.

        Args:
            special: ids of special tokens by their texts.
            size: number of ids of the vocabulary.
            own: the tokenizer's own ids by role, used if the files name no token.
        """
        found = {}
        for role in ROLES:
            name, ids = f"{role}_token", self._generated(role, size)
            text = self.token(name)
            if text is not None:
                found[role] = special.get(text)
                if found[role] is None:
                    logger.warning("%s %r is not in the vocabulary, or is an ordinary character: ignored", name, text)
            elif any(name in values for _, values in self._named):
                found[role] = None
            else:
                found[role] = own.get(role, next((token for token in ids if token in special.values()), None))
        ends = (found["eos"], *self._generated("eos", size))
        stop_ids = tuple(dict.fromkeys(token for token in ends if token is not None))
        return Roles(found["bos"], found["eos"], found["pad"], stop_ids)

    def _generated(self, role: str, size: int) -> list[int]:
        name = f"{role}_token_id"
        value = self._generation.get(name)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
            raise ValueError(f"{GENERATION}: {name} must be an id or a list of ids, got {value!r}")
        beyond = [token for token in ids if not 0 <= token < size]
        if beyond:
            message = "%s: %s names %s, but the vocabulary has %d ids: ignored"
            logger.warning(message, GENERATION, name, beyond, size)
        return [token for token in ids if token not in beyond]

    def _added(self, values: Mapping[str, dict[str, Any]]) -> dict[str, tuple[int, bool]]:
        decoder = values.get(CONFIG, {}).get("added_tokens_decoder") or {}
        try:
            found = {token: (int(number), True) for token, number in values.get(ADDED, {}).items()}
            found |= {t["content"]: (int(number), bool(t.get("special"))) for number, t in decoder.items()}
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(
                f"{ADDED} must map tokens to ids, and added_tokens_decoder of {CONFIG} ids to tokens: "
                f"{type(error).__name__} {error}"
            ) from None
        for token, (number, _) in found.items():
            if not isinstance(token, str) or not 0 <= number <= LARGEST_ID:
                raise ValueError(f"the added token {token!r} has the id {number}; valid: 0 to {LARGEST_ID}")
        return found


def _names_a_token(name: str, value: Any) -> bool:
    return name.endswith("_token") and isinstance(value, str | dict)  # add_bos_token is a flag


def _text(file: str, name: str, value: Any) -> str | None:
    """The text of a token, given as a string or as an object with flags."""
    text = value.get("content") if isinstance(value, dict) else value
    if text is not None and not isinstance(text, str):
        raise ValueError(f"{file}: {name} must be the text of a token, got {value!r}")
    return text or None
