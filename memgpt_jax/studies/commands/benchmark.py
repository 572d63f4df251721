r"""Speed and memory, measured side by side: table, plot, `benchmarks.json` and `BENCHMARKS.md`.

    memgpt-jax benchmark train benchmark --sweep model.memory=none,kv --peers True
    memgpt-jax benchmark train benchmark --training.batch_size 1 \
        --sweep model.memory=none,kv,knn,associative model.memory.memory_size=64,256,1024,4096
    memgpt-jax benchmark decode benchmark --sweep model.memory=none,kv --contexts 1024 16384 --rows 1 8
    memgpt-jax benchmark stream
    memgpt-jax benchmark serve runs/stdlib --slots 8 --peers
    memgpt-jax benchmark quantized HuggingFaceTB/SmolLM2-135M-Instruct --text book.txt
    memgpt-jax benchmark compressed runs/stdlib --sizes 512 256 128

`train` and `decode` take a config, overrides, and a sweep as in `memgpt-jax ablate` over any fields, such as
`parallel.data=1,2,4`. The first combination is the reference. The reference, each other combination, and a probe of the
machine's peak rate (matmuls for training, memory bandwidth for decoding) are timed interleaved, so that ratios hold on
a busy machine. `stream` reads and generates a million tokens: time per token, growth of memory, compilations.
`serve` answers as many requests as there are slots, by the engine of a server, one after the other and together, and
over HTTP; the reference is the engine with one slot.
`quantized` compares a pretrained decoder with its forms of 8 and 4 bits, and with `--state-bits 8` with a state of 8
bits: bytes, bits per byte of a text, and with `--rows` speed.
`compressed` reads documents by a run, compresses the memories (`mg.compress_memory`), and reads on: bytes of the
memories, and bits per byte of what follows.

Columns: `relative speed` is the ratio of tokens/s to the reference, which is timed again in turns with each case;
`by multiply-adds` the ratio predicted from matmul FLOPs alone. On a machine with other work, tokens/s of different rows
must not be compared.
"""

import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from rich.progress import track

from memgpt_jax.config.checks import instance_of
from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.memory import Compression
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.ops.quantized import Bits
from memgpt_jax.pipelines.base import load
from memgpt_jax.studies import benchmark
from memgpt_jax.studies.benchmark import Case
from memgpt_jax.studies.command_line import one_line_errors, override, parse, parse_arguments, sweep, sweep_words
from memgpt_jax.studies.plots import plot_ablation

TOO_SLOW = 0.1  # relative speed below which larger memories are not measured


@dataclass(frozen=True, kw_only=True)
class Arguments:
    """Options of this command."""

    sweep: tuple[str, ...] = ()
    """Fields and their values, `field=value,value,...`; the first combination is the reference."""
    contexts: tuple[int, ...] = (1024,)
    """`decode`: tokens read before decoding starts."""
    rows: tuple[int, ...] = (1,)
    """`decode`: rows decoded together."""
    peers: bool = False
    """Also measure installed models of other libraries in torch, with the widths of the reference."""
    rounds: int = 3
    """Rounds; in each round a case runs four times, and the first run is not counted."""
    output: Path = Path("runs/benchmark")
    """Folder of `BENCHMARKS.md`, `benchmarks.json` and the plots."""

    def __post_init__(self) -> None:
        sweep(self.sweep)


@dataclass(frozen=True, kw_only=True)
class StreamArguments:
    """Options of `stream`."""

    tokens: int = 1_000_000
    """Length of the stream in tokens."""
    output: Path = Path("runs/benchmark")
    """Folder of `BENCHMARKS.md` and `benchmarks.json`."""


@dataclass(frozen=True, kw_only=True)
class ServeArguments:
    """Options of `serve`."""

    model: tyro.conf.Positional[str]
    """Folder, GGUF file or name of the model."""
    slots: int = 8
    """Requests at the same time."""
    context: int = 128
    """Tokens of each prompt. Prompts are read one after the other, so speeds depend on it; 1: decoding alone."""
    new: int = 64
    """Tokens of each answer."""
    peers: bool = False
    """Also measure a FastAPI application that calls `generate` of transformers, if it is installed."""
    rounds: int = 3
    """Rounds; in each round a case runs four times, and the first run is not counted."""
    output: Path = Path("runs/benchmark")
    """Folder of `BENCHMARKS.md` and `benchmarks.json`."""


@dataclass(frozen=True, kw_only=True)
class QuantizedArguments:
    """Options of `quantized`."""

    model: tyro.conf.Positional[str]
    """Folder, GGUF file or name of a decoder."""
    bits: tuple[Bits, ...] = (8, 4)
    """Bits per weight that are compared with float32."""
    state_bits: Literal[8] | None = None
    """Also float32 weights with this number of bits per key and value of windows and memories."""
    text: Path
    """A text file, in UTF-8."""
    characters: int = 20_000
    """Characters of the text that are read, from its middle."""
    rows: tuple[int, ...] = ()
    """Rows decoded together; default: no speed is measured."""
    context: int = 64
    """Tokens read before decoding."""
    window: int | None = None
    """Tokens of the window; default: as the model has."""
    rounds: int = 3
    """Rounds; in each round a case runs four times, and the first run is not counted."""
    output: Path = Path("runs/benchmark")
    """Folder of `BENCHMARKS.md` and `benchmarks.json`."""


@dataclass(frozen=True, kw_only=True)
class CompressedArguments:
    """Options of `compressed`."""

    workdir: tyro.conf.Positional[Path]
    """Folder of a run on text, with a `kv` memory."""
    sizes: tuple[int, ...] = (512, 256, 128)
    """Entries of each layer after compression."""
    by: tuple[Compression, ...] = ("merge", "gate", "oldest")
    """Ways to compress, see `mg.compress_memory`."""
    read: int = 4096
    """Tokens of each document that are read before."""
    scored: int = 512
    """Tokens after them, whose bits per byte are measured."""
    documents: int = 32
    """Documents of the validation split, of those that are long enough."""
    output: Path = Path("runs/benchmark")
    """Folder of `BENCHMARKS.md` and `benchmarks.json`."""


def cases_of_train(arguments: Arguments, config: ExperimentConfig, label: dict[str, Any]) -> list[Any]:
    """(label, function that makes the case) of a training step."""
    return [(label, lambda: benchmark.training_case(config))]


def cases_of_decode(arguments: Arguments, config: ExperimentConfig, label: dict[str, Any]) -> list[Any]:
    """(label, function that makes the case) for each context and number of rows."""
    model = instance_of(config.model, ModelConfig, "model")
    return [
        (
            label | {"context": context, "rows": rows},
            lambda context=context, rows=rows: benchmark.decoding_case(model, context, rows),
        )
        for rows in arguments.rows
        for context in arguments.contexts
    ]


def peers_of(mode: str, arguments: Arguments, config: ExperimentConfig) -> list[Any]:
    """(label, function that makes the case) of the models of other libraries."""
    if mode == "train":
        return [({"model": name}, make) for name, make in benchmark.training_peers(config).items()]
    context = instance_of(config.model, ModelConfig, "model").window_size
    return [
        ({"model": name, "context": context, "rows": rows}, make)
        for rows in arguments.rows
        for name, make in benchmark.decoding_peers(config, rows).items()
    ]


def is_larger(label: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether a combination differs from another one only in a larger memory."""
    size = "model.memory.memory_size"

    def rest(values: dict[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in values.items() if key != size}

    sized = label.get(size) and other.get(size)
    return bool(sized) and rest(label) == rest(other) and int(label[size]) > int(other[size])


def measure(
    makers: list[tuple[dict[str, Any], Callable[[], Case], Case]], rounds: int, keep: Callable[[list[Any]], None]
) -> list[dict]:
    """A row for each case, saved as soon as it is measured; the first case is the reference.

    Args:
        makers: the label of each case, the function that makes it, and the probe of the machine's peak rate.
        rounds: as in `interleave`.
        keep: saves the rows so far.

    Raises:
        ValueError: the reference cannot be measured.
    """
    rows, slow, reference = [], [], None
    for label, make, probe in track(makers, description="cases"):
        if any(is_larger(label, other) for other in slow):
            continue
        try:
            case = make()
            reference = reference or case
            others = {} if case is reference else {"reference": reference}
            times = benchmark.interleave({"probe": probe, "case": case} | others, rounds)
        except (jax.errors.JaxRuntimeError, ValueError) as error:  # such as out of memory: other cases may still fit
            problem = str(error).splitlines()[0]
            if not rows:
                names = ", ".join(f"{name}={value}" for name, value in label.items()) or "the config"
                raise ValueError(
                    f"the first case, {names}, is the reference, and cannot be measured: {problem}"
                ) from None
            rows.append(label | {"failed": problem})
            keep(rows)
            continue
        seconds = times["case"].whole, times.get("reference", times["case"]).whole
        relative = (case.tokens / seconds[0]) / (reference.tokens / seconds[1])
        row = {"relative speed": relative}
        if case.flops:
            row["by multiply-adds"] = reference.flops / reference.tokens / (case.flops / case.tokens)
        rows.append(label | row | benchmark.measured_row(case, times["case"], probe, times["probe"]))
        keep(rows)
        slow += [label] * (relative < TOO_SLOW)
        del case
        jax.clear_caches()
    return rows


def draw(rows: list[dict[str, Any]], swept: list[str], path: Path) -> None:
    """Plot relative speed against the last field with several values, with a line for each combination of the
    others."""
    *others, axis = sorted(swept, key=lambda name: len({row.get(name) for row in rows}) > 1)
    lines = {}
    for row in rows:
        if row.get(axis) is not None and "failed" not in row:
            label = ", ".join(str(row[name]) for name in others if row.get(name) is not None)
            lines.setdefault(label, {})[str(row[axis])] = [row["relative speed"]]
    plot_ablation(lines, path, axis, "relative speed")


def stream(words: Sequence[str]) -> None:
    """Measure a stream read in pieces, and one generated token by token."""
    arguments = parse_arguments(StreamArguments, __doc__, words[1:])
    rows = []
    for name, by_token in track((("read in pieces", False), ("generated token by token", True))):
        found = benchmark.long_stream_measurements(arguments.tokens, by_token)
        second, last = found["milliseconds"][1], found["milliseconds"][9]
        rows.append(
            {
                f"{arguments.tokens:,} tokens": name,
                "last tenth / second": last / second,
                "growth after 10k tokens, MB": found["growth"],
                "compilations": found["compilations"],
            }
        )
    print(benchmark.table(rows))
    benchmark.add_section(arguments.output, command(words), "A long stream, read and generated by a small model.", rows)


def serve(words: Sequence[str]) -> None:
    """Measure a server."""
    arguments = parse_arguments(ServeArguments, __doc__, words[1:])
    sizes = {"slots": arguments.slots, "context": arguments.context, "new": arguments.new}
    with benchmark.serving_cases(load(arguments.model), peers=arguments.peers, **sizes) as cases:
        times = benchmark.interleave(cases, arguments.rounds)
    reference = next(iter(times.values())).whole
    rows = []
    for name, case in cases.items():
        seconds, row = times[name].whole, {"server": name}
        if case.tokens:
            row |= {"relative speed": reference / seconds, "tokens/s": case.tokens / seconds}
        rows.append(row | {"seconds": seconds})
    print(benchmark.table(rows))
    about = f"Answers of {arguments.new} tokens to prompts of {arguments.context} tokens, {arguments.slots} at a time."
    benchmark.add_section(arguments.output, command(words), about, rows)


def quantized(words: Sequence[str]) -> None:
    """Measure a pretrained decoder in float32, 8 and 4 bits."""
    arguments = parse_arguments(QuantizedArguments, __doc__, words[1:])
    text = arguments.text.read_text(encoding="utf-8")
    start = max(0, (len(text) - arguments.characters) // 2)
    rows = benchmark.quantized_rows(
        arguments.model,
        text[start : start + arguments.characters],
        bits=arguments.bits,
        state_bits=arguments.state_bits,
        rows=arguments.rows,
        context=arguments.context,
        window=arguments.window,
        rounds=arguments.rounds,
    )
    print(benchmark.table(rows))
    benchmark.add_section(arguments.output, command(words), "A decoder in float32, and quantised.", rows)


def compressed(words: Sequence[str]) -> None:
    """Measure a run whose memories are compressed after a part of each document."""
    arguments = parse_arguments(CompressedArguments, __doc__, words[1:])
    rows = benchmark.compressed_rows(
        arguments.workdir, arguments.sizes, arguments.by, arguments.read, arguments.scored, arguments.documents
    )
    print(benchmark.table(rows))
    about = (
        f"Memories compressed after {arguments.read:,} tokens; bits per byte of the {arguments.scored:,} that follow."
    )
    benchmark.add_section(arguments.output, command(words), about, rows)


def command(words: Sequence[str]) -> str:
    """The command that repeats this measurement; `--output` is left out."""
    if "--output" in words:
        place = words.index("--output")
        words = [*words[:place], *words[place + 2 :]]
    return f"python experiments/benchmark.py {shlex.join(words)}"


@one_line_errors()
def main(argv: Sequence[str] | None = None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)
    mode = words[0] if words else "--help"
    if mode in ("-h", "--help"):
        return print(__doc__)
    own = {"stream": stream, "serve": serve, "quantized": quantized, "compressed": compressed}
    if mode in own:
        return own[mode](words)
    if mode not in ("train", "decode"):
        raise ValueError(f"the first argument must be train, decode, {', '.join(own)}, got {mode!r}")
    config, arguments = parse(Arguments, __doc__, words[1:])
    cases_of = cases_of_train if mode == "train" else cases_of_decode
    combinations = sweep(arguments.sweep)
    swept = list(dict.fromkeys(name for values in combinations for name in values))
    # Wrong values are refused before the first measurement.
    configs = [override(config, sweep_words(values)) for values in combinations]
    dtypes = [next(iter(changed.model.stacks.values())).dtype for changed in configs]
    if mode == "train":
        probes = {dtype: benchmark.matmul_probe(dtype) for dtype in {*dtypes}}
    else:
        probes = dict.fromkeys(dtypes, benchmark.copy_probe())
    makers = []
    for values, changed, dtype in zip(combinations, configs, dtypes, strict=True):
        cases = cases_of(arguments, changed, {name: values.get(name) for name in swept})
        makers += [(label, make, probes[dtype]) for label, make in cases]
    if arguments.peers:
        makers += [(label, make, probes[dtypes[0]]) for label, make in peers_of(mode, arguments, configs[0])]
    about = {"train": "Training steps of random tokens.", "decode": "Greedy decoding, token by token."}
    keep = partial(benchmark.add_section, arguments.output, command(words), about[mode])
    rows = measure(makers, arguments.rounds, keep)
    print(benchmark.table(rows))
    swept += ["context", "rows"] if mode == "decode" else []
    if swept:
        draw(rows, swept, arguments.output / f"{mode}.png")
    print(f"{arguments.output}/BENCHMARKS.md")
