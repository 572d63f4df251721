"""Give a pretrained model a memory, train it, and measure the gain: a table, a plot and `adapt.json`.

    memgpt-jax adapt adapt --pretrained HuggingFaceTB/SmolLM2-135M --workdir runs/adapt

Trains `configs/adapt.py` (or another config) like `memgpt-jax train`, and measures bits per byte by position for the
pretrained model with full attention, with attention limited to the window, and with the memory before and after
training. With `--model.memory none --model.adapter_rank 8 --optimizer.trainable lora`: adapters without memory.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.table import Table

from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data import Tokenizer, load_tokenizer
from memgpt_jax.evaluation import evaluate
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.studies.command_line import one_line_errors, parse
from memgpt_jax.studies.plots import plot_curves
from memgpt_jax.training import RunError, train
from memgpt_jax.training.pretrained import PretrainedStart, pretrained_start


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this command."""

    workdir: Path
    """Folder of the run, of `adapt.json` and of the plot."""
    train: bool = True
    """Whether to train; False: measure the variants before training only."""


def variants(config: ExperimentConfig) -> dict[str, ExperimentConfig]:
    """The variants measured before training, by name."""
    plain = {"memory": NoMemoryConfig(), "memory_layers": None, "adapter_rank": None}
    longest = config.evaluation.max_tokens
    return {
        "full attention": with_model(config, window_size=longest, **plain),
        "window": with_model(config, **plain),
    } | ({"window, memory untrained": config} if has_memory(config) else {})


def has_memory(config: ExperimentConfig) -> bool:
    """Whether the config adds a memory."""
    return instance_of(config.model, ModelConfig, "model").memory.stores


def with_model(config: ExperimentConfig, **changes: Any) -> ExperimentConfig:
    """The experiment with another model."""
    model = instance_of(config.model, ModelConfig, "model")
    return dataclasses.replace(config, model=dataclasses.replace(model, **changes))


def measured(start: PretrainedStart, arguments: Arguments, tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """The results of every variant; those in `adapt.json` with the same `settings` are not measured again."""
    config, workdir = start.config, arguments.workdir
    path, trained = workdir / "adapt.json", trained_name(config)
    known = json.loads(path.read_text()) if path.is_file() else {}
    found = variants(config)
    settings = {name: _settings(variant) for name, variant in (found | {trained: config}).items()}
    results = {name: known[name] for name in settings if known.get(name, {}).get("settings") == settings[name]}

    def add(name: str, result: Any) -> None:
        results[name] = {**result, "settings": settings[name]}
        workdir.mkdir(parents=True, exist_ok=True)
        replace_file(path, json.dumps(results, indent=2))

    for name, variant in found.items():
        if name not in results:
            add(name, evaluate(variant, start.params(variant), tokenizer))
            jax.clear_caches()
    if arguments.train:
        add(trained, train(config, workdir)["evaluation"])
    return {name: results[name] for name in settings if name in results}


def _settings(variant: ExperimentConfig) -> str:
    """A digest of what the result of a variant depends on before training."""
    parts = variant.model, variant.data, variant.evaluation, variant.pretrained, variant.seed
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).hexdigest()


def trained_name(config: ExperimentConfig) -> str:
    """The name of the trained variant."""
    return f"window, {'memory' if has_memory(config) else 'adapters'} trained"


def table_of(results: dict[str, dict[str, Any]]) -> Table:
    """Bits per byte by position and in total, or the loss if the tokenizer is not lossless; lower is better."""
    table = Table("tokens", *results)
    for buckets in zip(*(result["curve"] for result in results.values()), strict=True):
        place = f"{buckets[0]['start']:,} to {buckets[0]['end']:,}"
        table.add_row(place, *(f"{bucket['bits_per_byte']:.3f}" for bucket in buckets))
    metric = metric_of(results)
    name = "all" if metric == "bits_per_byte" else "loss"
    table.add_row(name, *(f"[bold]{result[metric]:.3f}[/bold]" for result in results.values()))
    return table


def metric_of(results: dict[str, dict[str, Any]]) -> str:
    """The metric that is compared: bits per byte, or the loss in nats per token if the bytes are not known."""
    return "loss" if any(result["bits_per_byte"] is None for result in results.values()) else "bits_per_byte"


@one_line_errors((RunError, ValueError))
def main(argv: Sequence[str] | None = None) -> None:
    config, arguments = parse(Arguments, __doc__, argv)
    if config.pretrained is None:
        raise ValueError("--pretrained is missing: a folder, a .gguf file or a name on the Hub")
    workdir, console = arguments.workdir, Console()
    start = pretrained_start(config)
    text = instance_of(start.config.data, TextConfig, "data")
    results = measured(start, arguments, load_tokenizer(text.tokenizer))
    console.print(table_of(results))
    full, window, *others = (result[metric_of(results)] for result in results.values())
    for name, other in zip(list(results)[2:], others, strict=True):
        console.print(f"{name}: recovers {(window - other) / (window - full):.0%} of the loss caused by the window")
    curves = {name: [result["curve"]] for name, result in results.items() if result["curve"]}
    if curves:
        plot_curves(curves, workdir / "adapt.png", Path(config.pretrained).name)
