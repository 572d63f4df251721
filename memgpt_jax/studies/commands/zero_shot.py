"""Evaluate the pretrained model of a config on its held-out data, without training.

    memgpt-jax zero_shot lambada --pretrained FOLDER --output lambada.json
    memgpt-jax zero_shot lambada --pretrained FOLDER --output w32.json --model.window_size 32 --model.segment_length 32

The model is that with which `train` would begin: the architecture and parameters of the pretrained model, with the
memory, window and segment length of the config. A new memory does not change the outputs before it is trained."""

import dataclasses
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from memgpt_jax import data
from memgpt_jax.config.checks import check
from memgpt_jax.evaluation import evaluate
from memgpt_jax.files.replacement import replace_file
from memgpt_jax.studies.command_line import one_line_errors, parse
from memgpt_jax.studies.commands.evaluate import results_table
from memgpt_jax.training.pretrained import pretrained_start


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this command."""

    output: Path | None = None
    """JSON file for the results; default: they are only printed."""


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    config, arguments = parse(Arguments, __doc__, argv)
    start = pretrained_start(config)
    check(
        not start.new_heads,
        f"{config.pretrained} has no head {' and '.join(map(repr, start.new_heads))}: without training its outputs are "
        "random; give a model that was saved with it, such as a BertForMaskedLM",
    )
    config = dataclasses.replace(start.config, model=start.config.model.with_kernels("auto"))
    tokenizer, params = data.tokenizer_of(config.data), start.params(config)
    begin = time.perf_counter()
    result = dict(evaluate(config, params, tokenizer)) | {"seconds": time.perf_counter() - begin}
    if arguments.output is not None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        replace_file(arguments.output, json.dumps(result, indent=2) + "\n")
    Console(markup=False).print(results_table({str(config.pretrained): result}))
