"""A small run, trained as the command line says, in a process of its own: how many devices there are is fixed early.

python small_run.py DEVICES WORKDIR [--steps N] [--mesh data=2,fsdp=4] [--join ADDRESS COUNT ID] [--stuck_after N]
                    [--head NAME FILE] [--teacher RUN TOP_K] [--spans MODEL TEXTS]
"""

import argparse
import dataclasses
import threading

import jax

from memgpt_jax import parallel
from memgpt_jax.config.data import TextConfig
from memgpt_jax.config.distill import DistillConfig
from memgpt_jax.config.experiment import (
    EvaluationConfig,
    ExperimentConfig,
    OptimizerConfig,
    ParallelConfig,
    TrainingConfig,
)
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import EncoderConfig, ModelConfig
from memgpt_jax.data.tasks.multi_label_text import MultiLabelTextConfig
from memgpt_jax.data.tasks.recall import RecallConfig
from memgpt_jax.data.tasks.tagged_text import TaggedTextConfig
from memgpt_jax.models.heads.labels import LabelHeadConfig
from memgpt_jax.training import loop, train

STEPS = 12
HEADS = {
    "crf": (TaggedTextConfig, LabelHeadConfig(pool="none", crf=True)),
    "several_labels": (MultiLabelTextConfig, LabelHeadConfig(loss="binary")),
}
"""The task and the head of a run with a head, by its name."""
SIZES = {
    "d_model": 16,
    "num_layers": 1,
    "num_heads": 2,
    "segment_length": 8,
    "memory": KVMemoryConfig(memory_size=16, num_heads=2, head_dim=8),
}


def config(steps: int, parallel: ParallelConfig) -> ExperimentConfig:
    """Of a decoder with memory."""
    data = RecallConfig(num_pairs=4, num_keys=16, num_values=16, context_length=32, gap_length=16, query_length=8)
    model = ModelConfig(vocab_size=data.num_ids, window_size=8, **SIZES)
    return ExperimentConfig(
        model=model,
        data=data,
        optimizer=OptimizerConfig(warmup_steps=5),
        training=TrainingConfig(steps=steps, batch_size=8, log_every=1, checkpoint_every=6),
        evaluation=EvaluationConfig(batch_size=8, num_batches=1),
        parallel=parallel,
    )


def headed_config(name: str, file: str, parallel: ParallelConfig) -> ExperimentConfig:
    """Of an encoder with memory and a head in `HEADS`, on the examples of a file with the columns that its task has."""
    task, head = HEADS[name]
    data = task(train=file, valid=file, tokenizer="byte").completed()
    head = dataclasses.replace(head, num_outputs=len(data.output_names))
    backbone = EncoderConfig(vocab_size=257, heads=(), **SIZES)
    run = config(STEPS, parallel)
    training = dataclasses.replace(run.training, sequence_length=32)
    model = HeadedConfig(backbone=backbone, head=head, call_length=16)
    return dataclasses.replace(run, model=model, data=data, training=training)


def taught_config(teacher: str, top_k: int, parallel: ParallelConfig) -> ExperimentConfig:
    """Of a student of the run `teacher`, which is cached if `top_k` is not 0."""
    return dataclasses.replace(
        config(STEPS, parallel), seed=1, distill=DistillConfig(teachers=(teacher,), top_k=top_k or None)
    )


def spans_config(teacher: str, texts: str, parallel: ParallelConfig) -> ExperimentConfig:
    """Of a student of the model `teacher`, by spans of the texts of a folder."""
    run = config(STEPS, parallel)
    data = TextConfig(corpus="folder", path=texts, tokenizer="byte", cache_dir=f"{texts}-cache")
    training = dataclasses.replace(run.training, sequence_length=16)
    model = dataclasses.replace(run.model, vocab_size=257)
    distill = DistillConfig(teachers=(teacher,), by_spans=True, temperature=5.0)
    evaluation = dataclasses.replace(run.evaluation, max_documents=1, max_tokens=16, chunk_length=16)
    changes = {"data": data, "training": training, "model": model, "distill": distill, "evaluation": evaluation}
    return dataclasses.replace(run, **changes)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("devices", type=int)
    parser.add_argument("workdir")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--mesh", default="data=1")
    parser.add_argument("--join", nargs=3)
    parser.add_argument("--stuck_after", type=int, help="the data stops coming after so many batches")
    parser.add_argument("--head", nargs=2)
    parser.add_argument("--teacher", nargs=2)
    parser.add_argument("--spans", nargs=2)
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", arguments.devices)
    if arguments.join:
        address, count, index = arguments.join
        parallel.join_processes(address, int(count), int(index))
    if arguments.stuck_after is not None:
        stack, calls = loop.stack, []

        def stuck(batches):
            calls.append(None)
            if len(calls) > arguments.stuck_after:
                threading.Event().wait()
            return stack(batches)

        loop.stack = stuck
    mesh = ParallelConfig(**{name: int(size) for name, size in (pair.split("=") for pair in arguments.mesh.split(","))})
    if arguments.head:
        name, file = arguments.head
        run = headed_config(name, file, mesh)
    elif arguments.teacher:
        run = taught_config(arguments.teacher[0], int(arguments.teacher[1]), mesh)
    elif arguments.spans:
        run = spans_config(*arguments.spans, mesh)
    else:
        run = config(arguments.steps, mesh)
    train(run, arguments.workdir, print_progress=False)


if __name__ == "__main__":
    main()
