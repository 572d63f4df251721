"""Serve a trained or pretrained model over HTTP, in the form of OpenAI's API.

    memgpt-jax serve runs/stdlib
    memgpt-jax serve HuggingFaceTB/SmolLM2-135M-Instruct --port 8000 --sessions sessions
    memgpt-jax serve runs/sst2
    memgpt-jax serve runs/stdlib --pipelines runs/sst2 runs/squad
    memgpt-jax serve runs/stdlib --quantize 8      # a quarter of the memory
    memgpt-jax serve runs/stdlib --inspector       # http://127.0.0.1:8000/inspect

MODEL is the folder of a run or of a saved model, a GGUF file, or a name on the Hugging Face Hub. A run whose task has a
pipeline (labels, tags, answers) is served at /v1/pipelines/NAME, where NAME is the name of its folder. The API keys are
the lines of the file --keys, or those of the environment variable MEMGPT_API_KEYS, separated by commas.
"""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from memgpt_jax.config.checks import check
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.errors import RunError
from memgpt_jax.pipelines import pipeline
from memgpt_jax.pipelines.base import Loaded, load
from memgpt_jax.serving.settings import ServerSettings, is_local
from memgpt_jax.studies.command_line import one_line_errors, parse_arguments, text_argument

if TYPE_CHECKING:
    from memgpt_jax.serving.service import Service


@dataclass(frozen=True, kw_only=True)
class Arguments(ServerSettings):
    """Options of this command."""

    model: tyro.conf.Positional[str]
    """Folder, GGUF file or name of the model."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 8000
    """Port to listen at; 0: a free one."""
    name: str | None = None
    """Name of the model for clients; default: that of its folder or file."""
    pipelines: tuple[Path, ...] = ()
    """Folders of runs that are served as pipelines."""
    chat_template: Path | None = None
    """File with a chat template in Jinja; default: that of the model."""
    key_file: Annotated[Path | None, tyro.conf.arg(name="keys")] = None
    """File with one API key per line."""
    without_keys: bool = False
    """Listen at an address that other machines can reach although no API key is asked for."""
    drain_seconds: int = 45
    """Time for the requests that are being answered when the server is told to end."""
    keys: tyro.conf.Suppress[tuple[str, ...]] = ()
    template: tyro.conf.Suppress[str | None] = None


def api_keys(path: Path | None) -> tuple[str, ...]:
    """The API keys of a file and of the environment."""
    lines = os.environ.get("MEMGPT_API_KEYS", "").split(",")
    if path is not None:
        try:
            lines += path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"keys {path} cannot be read: {error}") from None
    keys = tuple(dict.fromkeys(key for line in lines if (key := line.strip())))
    check(path is None or bool(keys), f"keys {path} holds no key")
    return keys


def open_model(arguments: Arguments) -> tuple[Loaded | None, dict[str, Any]]:
    """The decoder that generates text, or None, and the pipelines by name.

    Raises `ValueError` if the model can neither generate text nor has a pipeline.
    """
    names = {folder.resolve().name: folder for folder in arguments.pipelines}
    check(len(names) == len(arguments.pipelines), "two folders of --pipelines have the same name")
    pipelines = {name: pipeline(folder) for name, folder in names.items()}
    loaded = load(arguments.model)
    if loaded.tokenizer is not None and isinstance(loaded.config, ModelConfig) and loaded.config.causal:
        return loaded, pipelines
    name = arguments.name or Path(arguments.model).resolve().name
    return None, pipelines | {name: pipeline(arguments.model)}


def parsed(argv: Sequence[str] | None = None) -> Arguments:
    """The options of a command line."""
    return parse_arguments(Arguments, __doc__, argv)


def open_service(arguments: Arguments) -> "Service":
    """The model and the pipelines of these options, behind a server.

    Raises `RunError` if the extra `serve` is not installed, and `ValueError` if an option is not valid.
    """
    try:
        from memgpt_jax.serving.service import Service
    except ImportError as error:
        raise RunError(f"{error.name} is missing: pip install 'memgpt-jax[serve]'") from None
    keys = api_keys(arguments.key_file)
    check(
        bool(keys) or is_local(arguments.host) or arguments.without_keys,
        f"host={arguments.host} can be reached by other machines: give --keys FILE, or --without-keys",
    )
    file = arguments.chat_template
    template = None if file is None else text_argument("--chat-template", f"@{file}")
    settings = replace(arguments, keys=keys, template=template)
    loaded, pipelines = open_model(arguments)
    name = arguments.name or Path(arguments.model).resolve().name
    return Service(settings, name=name, loaded=loaded, pipelines=pipelines)


@one_line_errors((RunError, ValueError))
def main(argv: Sequence[str] | None = None) -> int:
    arguments = parsed(argv)
    service = open_service(arguments)
    import uvicorn

    from memgpt_jax.serving.app import create_app

    # `force`: an imported library has given the root a handler.
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form, stream=sys.stderr, force=True)
    config = uvicorn.Config(
        create_app(service),
        host=arguments.host,
        port=arguments.port,
        log_config=None,
        timeout_graceful_shutdown=arguments.drain_seconds,
        timeout_keep_alive=30,
        h11_max_incomplete_event_size=64 * 1024,
    )
    server = uvicorn.Server(config)
    end = server.handle_exit

    def drain(sig: int, frame: FrameType | None) -> None:
        """At SIGINT and SIGTERM: no new work is taken, the rest is answered."""
        service.draining = True
        end(sig, frame)

    server.handle_exit = drain
    server.run()
    return 0 if server.started else 1
