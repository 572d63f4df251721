"""Training speed and memory, measured side by side on this machine.

    python experiments/benchmark.py speed     # none, kv and (where torch is installed) transformers' GPT-2
    python experiments/benchmark.py memory    # peak memory of a training step against sequence length

Speeds are ratios within one run: the candidates take turns of four steps, and the median of all but the first step of
a turn counts (in the first, memory that the last candidate gave back to the system is fetched again).
"""

import argparse
import dataclasses
import importlib.util
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


def jax_candidate(config: mg.ModelConfig, length: int):
    """A function that runs one training step and waits for it."""
    batch_size = TOKENS // length
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
    candidates = {"none": jax_candidate(none, 4 * window), "kv": jax_candidate(BASE, 4 * window)}
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
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("--rounds", type=int, default=3, help="turns of each candidate")
    arguments = parser.parse_args()
    Console().print(speed(arguments.rounds) if arguments.what == "speed" else memory())
