"""Where pretrained models come from: a folder, a file, or the Hugging Face Hub."""

from pathlib import Path

PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json", "tokenizer*", "*.model", "vocab.txt", "*.gguf")


def find(source: str | Path, revision: str | None = None) -> Path:
    """The folder or GGUF file that a path names, or the local copy of a model on the Hub, fetched where it is missing.

    Args: source: a path, or the name of a model such as "HuggingFaceTB/SmolLM2-135M"; revision: of the latter.

    Raises:
        ValueError: there is neither, or the Hub cannot be reached.
    """
    path = Path(source).expanduser()
    if path.exists():
        return path
    if str(source).count("/") != 1 or path.is_absolute() or str(source).startswith("."):
        raise ValueError(f"there is no folder {path}, and names on the Hub are owner/model")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=list(PATTERNS), etag_timeout=1))
    except HFValidationError as error:
        raise ValueError(f"there is no folder {path}, and names on the Hub are owner/model: {error}") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise ValueError(
            f"there is no folder {path}, and the Hub did not give a model of this name: {type(error).__name__}: {error}"
        ) from None
