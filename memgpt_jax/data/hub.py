"""Local copies of pretrained models: a folder, a file, or a download from the Hugging Face Hub."""

import difflib
from pathlib import Path

from memgpt_jax.config.checks import check

PATTERNS = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "*.gguf",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template*",
    "*.model",
    "vocab.*",
    "merges.txt",
)
"""Patterns of the files of a model that are fetched."""
NOT_FETCHED = ("*/*", "consolidated*")
"""Patterns of files that are not fetched: files in sub-folders, and copies of the weights in another layout."""


def find(source: str | Path, revision: str | None = None) -> Path:
    """The folder or GGUF file of a path, or the local copy of a model on the Hub, which is downloaded if missing.

    A source that looks like a mistyped path is not looked up on the Hub, unless a `revision` is given.
    GGUF files are downloaded where there are no other weights, and then there must be one.

    Args:
        source: a path, or the name of a model such as "HuggingFaceTB/SmolLM2-135M".
        revision: branch, tag or commit of a model on the Hub.

    Raises:
        ValueError: neither exists, the Hub cannot be reached, or the model has several GGUF files and no other weights.
    """
    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError) as error:  # a name that is too long, no permission, an unknown ~user
        raise ValueError(f"{source} cannot be opened: {error}") from None
    if str(source).count("/") != 1 or path.is_absolute() or str(source).startswith((".", "~")):
        raise ValueError(f"there is no folder {path}{_suggestion(path)}, and names on the Hub are owner/model")
    if revision is None and _looks_like_a_path(str(source)):
        raise ValueError(
            f"there is no {path}{_suggestion(path)}. The Hub was not queried, as it looks like a path; for a model on "
            'the Hub, also give revision="main", or change the working directory'
        )
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        files = [
            file.rfilename for file in HfApi().model_info(str(source), revision=revision, timeout=1).siblings or ()
        ]
    except Exception:  # of any of its libraries: what is wrong is said below, and a model in the cache is read
        files = []
    has_weights = any(name.endswith(".safetensors") for name in files)
    of_gguf = [name for name in files if name.endswith(".gguf") and "/" not in name]
    check(
        has_weights or len(of_gguf) <= 1,
        f"{source} has several .gguf files, and none was downloaded: {', '.join(of_gguf)}; download one of them and "
        "give its path",
    )
    try:
        ignored = [*NOT_FETCHED, *(["*.gguf"] if has_weights else [])]
        options = {"allow_patterns": list(PATTERNS), "ignore_patterns": ignored, "etag_timeout": 1}
        return Path(snapshot_download(str(source), revision=revision, **options))
    except HFValidationError as error:
        raise ValueError(f"there is no folder {path}, and names on the Hub are owner/model: {error}") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"there is no folder {path}, and the Hub returned no model of this name: {type(error).__name__}: {error}"
        ) from None


def _looks_like_a_path(source: str) -> bool:
    """Whether `first/second` is probably a path: of a file, in an existing folder, or similar to an existing path."""
    first, second = source.split("/")
    is_file = second.endswith((".gguf", ".safetensors", ".json", ".bin", ".model"))
    return is_file or not first or not second or Path(first).is_dir() or bool(_similar_paths(Path(source)))


def _suggestion(path: Path) -> str:
    """Existing paths that are similar to a missing path, for an error message."""
    found = _similar_paths(path)
    return f" (there is {', '.join(found)})" if found else ""


def _similar_paths(path: Path) -> list[str]:
    """Existing paths whose last two parts are similar to those of the given path."""
    parents = [path.parent]
    if not path.parent.is_dir():
        parents = [path.parent.with_name(name) for name in _similar_names(path.parent.parent, path.parent.name)]
    return [str(parent / name) for parent in parents for name in _similar_names(parent, path.name)]


def _similar_names(folder: Path, name: str) -> list[str]:
    """The names in a folder that are similar to a name."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return []
    return difflib.get_close_matches(name, names, cutoff=0.7)
