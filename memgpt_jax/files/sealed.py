"""JSON objects with a checksum of their own text, so that any flipped bit in a file is detected.

The last field is `"crc32"`, the CRC-32 of the text before it. A file of such lines can be extended by lines, and
truncated after any line.
"""

import json
import re
import zlib
from typing import Any

from memgpt_jax.files.checksums import DamagedError

SEALED = re.compile(r'(\{.*), "crc32": "([0-9a-f]{8})"\}', re.DOTALL)


def seal(values: dict[str, Any]) -> str:
    """One line of JSON, without a line end: the values, which must not be empty, and `crc32`."""
    text = json.dumps(values)[:-1]
    return f'{text}, "crc32": "{_digest(text)}"}}'


def unseal(text: str) -> dict[str, Any]:
    """The values that `seal` wrote, without `crc32`. Text without a checksum is read unverified.

    Raises `DamagedError` if the checksum differs or the text is not a JSON object.
    """
    match = SEALED.fullmatch(text)
    # Text without a checksum ends in a number, a list or null; a damaged checksum still ends in a quotation mark.
    if text.endswith('"}') and (match is None or _digest(match[1]) != match[2]):
        raise DamagedError("its checksum differs")
    try:
        values = json.loads(f"{match[1]}}}" if match else text)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"it is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise DamagedError("it is not a JSON object")
    return values


def _digest(text: str) -> str:
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
