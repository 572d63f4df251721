"""Speed and memory, measured side by side on this machine.

    python experiments/benchmark.py speed     # training: none, kv and (where torch is installed) transformers' GPT-2
    python experiments/benchmark.py memory    # peak memory of a training step against sequence length
    python experiments/benchmark.py decode    # generation after contexts of 1k, 16k and 256k tokens, 1 and 8 rows
    python experiments/benchmark.py stream    # a million tokens: time per token, memory, compilations

Speeds are ratios within one run: the candidates take turns of four steps, and the median of all but the first step of
a turn counts (in the first, memory that the last candidate gave back to the system is fetched again).
"""

import argparse
import dataclasses
import importlib.util
import resource
import statistics
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from rich.console import Console
from rich.progress import track
from rich.table import Table

import memgpt_jax as mg
from memgpt_jax.generation.decode import CAPACITY, advance, begin
from memgpt_jax.generation.prefill import compiled_read, prefill
from memgpt_jax.parameters import count_parameters

TOKENS = 8192  # tokens of a training step
KV = mg.KVMemoryConfig(memory_size=2048)
BASE = mg.ModelConfig(
    vocab_size=8192, d_model=256, num_layers=6, num_heads=4, window_size=512, segment_length=512, memory=KV
)


def jax_step(config: mg.ModelConfig, batch_size: int, length: int):
    """A compiled AdamW step with carried state, and its arguments."""
    optimizer = optax.adamw(1e-4)

    def step(params, opt_state, state, tokens):
        def loss(params):
            reset = jnp.zeros(tokens.shape, bool)
            scores, after = mg.score_tokens(config, params, tokens, tokens, state, reset=reset, aligned=True)
            return jnp.mean(scores.losses), jax.lax.stop_gradient(after)

        (value, after), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, after, value

    params = jax.eval_shape(lambda: mg.init(config, jax.random.key(0)))
    state = jax.eval_shape(lambda: mg.init_state(config, batch_size))
    tokens = jax.ShapeDtypeStruct((batch_size, length), jnp.int32)
    compiled = jax.jit(step, donate_argnums=(0, 1, 2)).lower(
        params, jax.eval_shape(optimizer.init, params), state, tokens
    )
    return compiled.compile(), optimizer


def jax_candidate(config: mg.ModelConfig, length: int, batch_size: int):
    """A function that runs one training step and waits for it."""
    compiled, optimizer = jax_step(config, batch_size, length)
    params = mg.init(config, jax.random.key(0))
    carried = [params, optimizer.init(params), mg.init_state(config, batch_size)]
    tokens = np.random.default_rng(0).integers(config.vocab_size, size=(batch_size, length), dtype=np.int32)

    def run():
        *carried[:], loss = compiled(*carried, tokens)
        jax.block_until_ready(loss)

    return run


def torch_candidate(config: mg.ModelConfig, context: int):
    """The same for transformers' GPT-2, of the same widths, with full attention in sequences of `context` tokens."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size, n_embd=config.d_model, n_layer=config.num_layers, n_head=config.num_heads,
            n_positions=context, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False,
        )
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    tokens = torch.randint(config.vocab_size, (TOKENS // context, context))

    def run():
        optimizer.zero_grad()
        model(tokens, labels=tokens).loss.backward()
        optimizer.step()

    return run


def speed(rounds: int) -> Table:
    """Median seconds of a training step; the candidates take turns of four steps.

    Ours: 4 rows of 2,048 tokens, sliding window 512, carried state; kv has 2,048 entries in each layer. GPT-2: 16 rows
    of 512 tokens.
    """
    none = dataclasses.replace(BASE, memory=mg.NoMemoryConfig())
    window = BASE.window_size
    candidates = {"none": jax_candidate(none, 4 * window, 4), "kv": jax_candidate(BASE, 4 * window, 4)}
    if importlib.util.find_spec("transformers") and importlib.util.find_spec("torch"):
        candidates["GPT-2 of transformers, in torch"] = torch_candidate(none, window)
    seconds = {name: [] for name in candidates}
    for _ in track(range(rounds), description="rounds"):
        for name, run in candidates.items():
            run()
            for _ in range(3):
                start = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    reference = medians["none"]
    table = Table("training step of 8,192 tokens", "seconds", "tokens/s", "speed relative to none")
    for name, median in medians.items():
        table.add_row(name, f"{median:.2f}", f"{TOKENS / median:,.0f}", f"{reference / median:.2f}")
    print(f"parameters: none {count_parameters(none):,}, kv {count_parameters(BASE):,}")
    return table


CONTEXTS = (1024, 16384, 262144)
NEW = 64  # tokens that a decoding candidate writes


def decode_candidates(name: str, config: mg.ModelConfig) -> dict:
    """By (name, rows, context): a function that writes n tokens after that many."""
    model = (config, mg.init(config, jax.random.key(0)))
    text = np.random.default_rng(0).integers(config.vocab_size, size=(1, CONTEXTS[-1]), dtype=np.int32)
    candidates, state, read = {}, None, 0
    for context in track(CONTEXTS, description=f"reading, {name}"):
        _, state = mg.generate(model, text[:, read:context], state=state, max_new_tokens=1, return_state=True)
        read = context
        for rows in (1, 8):
            forked = jax.tree.map(lambda x, rows=rows: jnp.repeat(x, rows, axis=0), state)
            prompt = np.repeat(text[:, -1:], rows, axis=0)
            options = {"prompt": prompt, "state": forked}
            candidates[name, rows, context] = lambda n, o=options: mg.generate(model, max_new_tokens=n, **o)
    return candidates


def torch_decode_candidates(config: mg.ModelConfig) -> dict:
    """The same for transformers' GPT-2 with its key-value cache, at the shortest context."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    size = {"n_embd": config.d_model, "n_layer": config.num_layers, "n_head": config.num_heads}
    special = {"bos_token_id": 0, "eos_token_id": 0}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=config.vocab_size, n_positions=2 * CONTEXTS[0], **size, **special))

    def candidate(rows):
        ids = torch.randint(1, config.vocab_size, (rows, CONTEXTS[0]))
        options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}
        return lambda n: model.eval().generate(ids, max_new_tokens=n, min_new_tokens=n, **options)

    return {("GPT-2 of transformers", rows, CONTEXTS[0]): candidate(rows) for rows in (1, 8)}


def decode(rounds: int) -> Table:
    """Median time of a step of greedy decoding: that of NEW tokens less that of one, which pays for the prompt too."""
    candidates = decode_candidates("none", dataclasses.replace(BASE, memory=mg.NoMemoryConfig()))
    candidates |= decode_candidates("kv", BASE)
    if importlib.util.find_spec("transformers") and importlib.util.find_spec("torch"):
        candidates |= torch_decode_candidates(BASE)
    seconds = {key: [] for key in candidates}
    for _ in track(range(rounds + 1), description="rounds"):
        for key, write in candidates.items():
            times = [time.perf_counter()]
            for number in (NEW, 1):
                write(number)
                times.append(time.perf_counter())
            seconds[key].append((times[1] - times[0] - (times[2] - times[1])) / (NEW - 1))
    medians = {key: statistics.median(values[1:]) for key, values in seconds.items()}  # the first round compiles
    table = Table("greedy decoding", "rows", "context", "ms a step", "tokens/s", "speed relative to none at 1k")
    for (name, rows, context), median in medians.items():
        relative = medians["none", rows, CONTEXTS[0]] / median
        table.add_row(
            name, str(rows), f"{context:,}", f"{1e3 * median:.2f}", f"{rows / median:,.0f}", f"{relative:.2f}"
        )
    return table


SMALL = mg.ModelConfig(
    vocab_size=257, d_model=64, num_layers=2, window_size=128, memory=mg.KVMemoryConfig(memory_size=1024)
)


def stream_measurements(num_tokens: int, by_token: bool) -> dict:
    """Read, or write, a stream of so many tokens: milliseconds per 1,000 in each tenth, peak memory, compilations."""
    piece, params = 1024, mg.init(SMALL, jax.random.key(0))
    random, greedy, never = np.random.default_rng(0), mg.Sampling(), np.zeros(0, np.int32)
    compiled = advance if by_token else compiled_read
    earlier = compiled._cache_size()
    state = mg.init_state(SMALL, 1)
    if by_token:
        logits, state = prefill(SMALL, params, [random.integers(257, size=piece)], state)
        decoding = begin(greedy, 1, logits, state, np.full(1, 2**30, np.int32), None, never, 0)
    times, peak = [], 0
    for number in track(range(num_tokens // piece), description="tokens" if by_token else "pieces"):
        start = time.perf_counter()
        if by_token:
            for _ in range(piece // CAPACITY):
                tokens, decoding = advance(SMALL, greedy, params, decoding, CAPACITY, never)
            tokens.block_until_ready()
        else:
            logits, state = prefill(SMALL, params, [random.integers(257, size=piece)], state)
            logits.block_until_ready()
        times.append(1e6 * (time.perf_counter() - start) / piece)
        if number < 10_000 // piece + 1:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tenth = len(times) // 10
    return {
        "milliseconds": [statistics.median(times[i * tenth : (i + 1) * tenth]) for i in range(10)],
        "growth": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024,
        "compilations": compiled._cache_size() - earlier,
    }


def stream(num_tokens: int) -> Table:
    """A stream read in pieces of 1,024 tokens, and one written token by token, by a small model."""
    columns = ("tenth 2", "tenth 10", "10 / 2", "memory after 10k, MB", "compilations")
    table = Table(f"{num_tokens:,} tokens", *columns, caption="tenths: milliseconds per 1,000 tokens")
    for name, by_token in (("read in pieces", False), ("written one by one", True)):
        found = stream_measurements(num_tokens, by_token)
        second, last = found["milliseconds"][1], found["milliseconds"][9]
        ratio, growth = f"{last / second:.2f}", f"+{found['growth']:.1f}"
        table.add_row(name, f"{second:.1f}", f"{last:.1f}", ratio, growth, str(found["compilations"]))
    return table


def memory() -> Table:
    """What the compiler allocates for one row's training step, beyond parameters and state."""
    table = Table("sequence length", "none, MB", "kv, MB", "kv, bytes per token")
    for length in track((2048, 8192, 32768), description="compiling"):
        sizes = []
        for config in (dataclasses.replace(BASE, memory=mg.NoMemoryConfig()), BASE):
            compiled, _ = jax_step(dataclasses.replace(config, remat=True), 1, length)
            sizes.append(compiled.memory_analysis().temp_size_in_bytes)
        table.add_row(f"{length:,}", *(f"{size / 1e6:,.0f}" for size in sizes), f"{sizes[1] / length:,.0f}")
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["speed", "memory", "decode", "stream"])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each candidate")
    parser.add_argument("--tokens", type=int, default=1_000_000, help="length of the stream")
    arguments = parser.parse_args()
    measure = {
        "speed": lambda: speed(arguments.rounds),
        "memory": memory,
        "decode": lambda: decode(arguments.rounds),
        "stream": lambda: stream(arguments.tokens),
    }
    Console().print(measure[arguments.what]())
