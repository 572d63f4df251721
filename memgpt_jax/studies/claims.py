"""The claims of the ledger, as data. `memgpt-jax ledger NAME` measures one.

The source of a claim is a paper, or "ours": a figure of the README or of a config's docstring.
"""

from memgpt_jax.memory import MEMORIES
from memgpt_jax.studies.ledger import Case, Claim, at_least, at_most

# A smaller `recall`: one layer, whose window of 16 tokens is no longer than the gap of 16. About 15 s for each seed.
SMALL = ("model.num_layers=1", "data.gap_length=16", "training.steps=200")

# A smaller `copy`: one layer, and at least 8 symbols, so that the window of 8 never contains the symbol to copy.
# About 25 s for each seed.
SMALL_COPY = ("model.num_layers=1", "data.min_length=8", "data.max_length=15", "training.steps=80")

# Trained entries with gate 1 fill the memory from the start. Entries of tokens have lower gates, and the entry with
# the lowest gate is evicted: no entry of a token stays in the memory.
READ_ONLY = ("model.memory.evict=lowest_gate", "model.memory.initial_entries=64")

FAR = ("model.memory.memory_size=16384", "data.context_length=16384")
SMALL_BATCHES = ("evaluation.batch_size=2", "evaluation.num_batches=8")
"""With `FAR`, whose memory has 256 times the entries of training: 128 answers."""


def gate(name: str, expected: float, *overrides: str) -> Case:
    """A gate of the `kv` memory on recall, read with 256 times the entries of training."""
    label = " ".join([name, *(word.rpartition(".")[2] for word in overrides)])
    settings = {"overrides": (f"model.memory.gate={name}", *overrides), "change": FAR + SMALL_BATCHES}
    return Case(label=label, config="recall", expected=at_least(expected), **settings)


BABI_10K = "$MEMGPT_DATA/babi/en-10k"


ALL_TASKS = " ".join(map(str, range(1, 21)))
JOINT = (f"data.tasks={ALL_TASKS}", "data.show_answers=False", "training.sequence_length=512", "training.steps=2500")
"""One model for all of bAbI's tasks. As in Memory Networks, it does not see the answers to earlier questions."""
WHOLE_STORY = {
    "kv": ("model.memory.memory_size=512",),
    "memn2n": ("model.memory=memn2n", "model.memory.entry=segment", "model.memory.memory_size=64"),
}
"""Memories of 64 sentences."""


def babi_table() -> tuple[Case, ...]:
    """For each memory, one run: the number of failed tasks, then the accuracy of each task."""
    return tuple(
        Case(
            label=f"{memory}, {label}", config="babi", overrides=(*JOINT, *overrides), metric=metric, expected=expected
        )
        for memory, overrides in WHOLE_STORY.items()
        for label, metric, expected in (
            ("failed tasks", "failed_tasks", at_most(16)),
            *((f"qa{task}", f"groups.qa{task}", None) for task in range(1, 21)),
        )
    )


LONG_COPY = ("data.min_length=120", "data.max_length=120")


def babi(task: int, *overrides: str) -> Case:
    """A model trained on one of bAbI's tasks, measured on the 1,000 test questions of the data set."""
    return Case(label=f"qa{task}", config="babi", overrides=(f"data.tasks={task}", *overrides), expected=at_least(0.95))


CLAIMS = (
    Claim(
        name="convolution_binds",
        text="A kernel-3 convolution in front of the Writer's keys turns recall from a few percent to 0.99 and more.",
        source="ours; short convolutions: Poli et al. 2023, Hyena; Arora et al. 2024, Zoology",
        tier="cpu",
        metric="accuracy",
        order="rises",
        cases=(
            Case(
                label="kernel 1",
                config="recall",
                overrides=(*SMALL, "model.memory.writer_conv=1"),
                expected=at_most(0.2),
            ),
            Case(label="kernel 3", config="recall", overrides=SMALL, expected=at_least(0.99)),
        ),
    ),
    Claim(
        name="writing_matters",
        text="A memory of trained entries that is only read stays at chance (0.016) on copy; one that is written "
        "solves it.",
        source="ours; Bulatov et al. 2022, Recurrent Memory Transformer, on copy and reverse",
        tier="cpu",
        metric="accuracy",
        order="rises",
        cases=(
            Case(label="read only", config="copy", overrides=(*SMALL_COPY, *READ_ONLY), expected=at_most(0.05)),
            Case(label="read and written", config="copy", overrides=SMALL_COPY, expected=at_least(0.95)),
        ),
    ),
    Claim(
        name="ntm_copies",
        text="A Neural Turing Machine that learned to copy up to 20 symbols copies 120.",
        source="Graves et al. 2014, Neural Turing Machines, section 4.1",
        tier="cpu-long",
        metric="accuracy",
        cases=(
            Case(label="up to 20", config="ntm_copy", expected=at_least(0.99)),
            Case(label="120", config="ntm_copy", change=LONG_COPY, expected=at_least(0.99)),
        ),
    ),
    Claim(
        name="recall_needs_memory",
        text="Pairs that lie outside of the attention window are recalled with a memory, and not without.",
        source="ours",
        tier="cpu-long",
        metric="accuracy",
        cases=(
            Case(label="none", config="recall", overrides=("model.memory=none",), expected=at_most(0.03)),
            Case(label="kv", config="recall", expected=at_least(0.99)),
        ),
    ),
    Claim(
        name="gates_far_from_training",
        text="Each gate reads 256 times the memory of training; `scale` needs a sharper reader for it.",
        source="ours",
        tier="cpu-long",
        metric="accuracy",
        cases=(
            gate("log_bias", 0.99),
            gate("scale_value", 0.95),
            gate("none", 0.95),
            gate("scale", 0.7),
            gate("scale", 0.99, "model.memory.temperature=40"),
        ),
    ),
    Claim(
        name="bptt_depth",
        text="The further back gradients flow through the memory, 0, 1 or 2 segments, the fewer bits per byte.",
        source="Bulatov et al. 2022, Recurrent Memory Transformer, on WikiText-103",
        tier="cpu-long",
        metric="bits_per_byte",
        order="falls",
        cases=tuple(
            Case(label=f"depth {depth}", config="ablate_memory", overrides=(f"model.memory.bptt_segments={depth}",))
            for depth in (0, 1, 2)
        ),
    ),
    Claim(
        name="memory_size",
        text="On source code, a larger memory gives fewer bits per byte, from no entries to 1,024.",
        source="ours; Wu et al. 2022, Memorizing Transformers, section 4",
        tier="cpu-long",
        metric="bits_per_byte",
        order="falls",
        cases=tuple(
            Case(label=f"{size} entries", config="ablate_memory", overrides=(f"model.memory.memory_size={size}",))
            for size in (0, 64, 256, 1024)
        ),
    ),
    Claim(
        name="memory_on_text",
        text="On source code, the memory gives fewer bits per byte than the same model without, at equal parameters.",
        source="ours",
        tier="cpu-long",
        metric="bits_per_byte",
        order="falls",
        cases=(Case(label="none", config="stdlib_none"), Case(label="kv", config="stdlib")),
    ),
    Claim(
        name="needle_after_a_million",
        text="Facts in source code are recalled after a million tokens from 64 entries a layer, and not without.",
        source="ours; task: Hsieh et al. 2024, RULER",
        tier="cpu-long",
        metric="accuracy",
        cases=(
            Case(
                label="kv",
                config="needle",
                change=("data.num_needles=16",),
                needles_after=1_000_000,
                expected=at_least(0.98),
            ),
            Case(
                label="none",
                config="needle",
                overrides=("model.memory=none",),
                change=("data.num_needles=16",),
                needles_after=1_000_000,
                expected=at_most(0.1),
            ),
        ),
    ),
    Claim(
        name="mechanisms_recall",
        text="Every mechanism learns to recall pairs from outside of the window, with the settings of `kv`.",
        source="ours",
        tier="cpu-long",
        metric="accuracy",
        cases=tuple(
            Case(label=name, config="recall", overrides=(f"model.memory={name}",), expected=at_least(0.95))
            for name in MEMORIES
            if name != "none"
        ),
    ),
    Claim(
        name="delta_overwrites",
        text="Where keys are rewritten, a fast-weight matrix answers with the last value more often by the delta rule "
        "than by the linear one, which adds up all of them.",
        source="Schlag et al. 2021, Linear Transformers Are Secretly Fast Weight Programmers",
        tier="cpu-long",
        metric="accuracy",
        order="rises",
        cases=tuple(
            Case(
                label=rule,
                config="forgetting",
                overrides=("model.memory=associative", f"model.memory.rule={rule}"),
            )
            for rule in ("linear", "delta")
        ),
    ),
    Claim(
        name="babi",
        text="bAbI's tasks 1 and 20 with 1,000 questions, 4 and 15 with 10,000: 0.95 or more.",
        source="Weston et al. 2015, Towards AI-Complete Question Answering",
        tier="cpu-long",
        metric="accuracy",
        cases=(
            babi(1, "training.steps=400"),
            babi(20, "training.steps=200"),
            babi(4, f"data.path={BABI_10K}", "training.steps=600"),
            babi(15, f"data.path={BABI_10K}", "training.steps=600"),
        ),
    ),
    Claim(
        name="babi_table",
        text="One model learns bAbI's 20 tasks from 1,000 questions each: accuracies, and how many fail (below 0.95).",
        source="Weston et al. 2015, Towards AI-Complete Question Answering; Sukhbaatar et al. 2015, table 1",
        tier="gpu",
        metric="accuracy",
        cases=babi_table(),
    ),
    Claim(
        name="dnc_repeats",
        text="A Differentiable Neural Computer makes the number of copies it is asked for, then stops.",
        source="Graves et al. 2014, section 4.2; Graves et al. 2016, Hybrid computing using a neural network",
        tier="cpu-long",
        metric="accuracy",
        cases=(Case(label="1 to 4 copies", config="dnc_repeat_copy", expected=at_least(0.99)),),
    ),
    Claim(
        name="babilong",
        text="bAbI's task 1 in books, trained on 512 tokens, is answered after 4, 32 and 256 thousand and a million "
        "tokens from 1,024 entries a layer.",
        source="Kuratov et al. 2024, BABILong",
        tier="gpu",
        metric="accuracy",
        cases=tuple(
            Case(
                label=f"{length:,} tokens, {rows} answers",
                config="babilong",
                change=(
                    f"training.sequence_length={length}",
                    "model.memory.memory_size=1024",
                    f"evaluation.num_batches={rows // 8}",
                ),
                expected=at_least(accuracy),
            )
            for length, rows, accuracy in ((4096, 32, 0.9), (32768, 32, 0.85), (262144, 16, 0.75), (1048576, 8, 0.6))
        ),
    ),
)
