"""Fast weights: a matrix per head, written and read in chunks of tokens with matmuls only."""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from memgpt_jax.config.checks import check
from memgpt_jax.ops.attention.dense import MASKED, map_rows, normalize
from memgpt_jax.ops.mesh import on_each_device, row_and_head_axes
from memgpt_jax.shapes import Array, Bool, Float, Float32, Int32

CHUNK_LENGTH = 64  # maximum tokens per chunk: longer chunks cost more work each, but fewer steps of the scan


class Writes(NamedTuple):
    """Updates of the matrix of one head by the tokens of S segments. A gate of 0 writes nothing."""

    keys: Float32[Array, "B S T M"]  # phi(k), of unit length
    values: Float32[Array, "B S T K"]
    gate: Float32[Array, "B S T"]  # g in [0, 1]
    log_keep: Float32[Array, "B S T"] | None  # log a_t: log of the factor by which the token decays the matrix; None: 0


class Chunk(NamedTuple):
    """Everything about a chunk of C tokens that does not depend on the incoming matrix."""

    after_reset: Bool[Array, " C"]  # the token's document began in the chunk
    kept: Float32[Array, " C"] | None  # c_t, from the start of the chunk or of the document; None: 1
    last: Float32[Array, " C"]  # factor by which later tokens decay u_t; 0 outside the last document
    solve: Float32[Array, "C C"] | None  # maps the errors of the tokens to u; None with the linear rule
    mix: Float32[Array, "C C"] | None  # weights with which each token reads u


def unit_features(x: Float[Array, "... F"], kind: Literal["none", "elu", "dpfp"], size: int) -> Float32[Array, "... M"]:
    """Features phi(x) of unit length, in float32: phi = p / |p|.

    - `none`: p = x
    - `elu`: p = elu(x) + 1 (Katharopoulos et al., 2020)
    - `dpfp`: p_i = r_j r_{j - n} with r = relu([x, -x]) [2F], j = i mod 2F and n = 1 + i // 2F (Schlag et al., 2021)

    With `dpfp`, M is at least 2F, so that each channel with each sign is a factor of two features. The first 2F (F - 1)
    features are different; the next 2F are 0, and further ones repeat. Otherwise M = F.

    Raises:
        ValueError: M does not fit F.
    """
    fits, valid = (size >= 2 * x.shape[-1], "at least 2 F") if kind == "dpfp" else (size == x.shape[-1], "F")
    check(fits, f"{kind!r} features of F = {x.shape[-1]} channels: their number must be {valid}, got {size}")
    x = x.astype(jnp.float32)
    if kind == "elu":
        x = jax.nn.elu(x) + 1
    elif kind == "dpfp":
        rectified = jax.nn.relu(jnp.concatenate([x, -x], axis=-1))
        width = rectified.shape[-1]
        twice = jnp.concatenate([rectified, rectified], axis=-1)  # a slice of it is faster than a roll
        shifts = (shift % width for shift in range(1, 1 - (-size // width)))
        products = [rectified * twice[..., width - shift : 2 * width - shift] for shift in shifts]
        x = jnp.concatenate(products, axis=-1)[..., :size]
    return normalize(x)


def scan_fast_weights(
    writes: Writes,
    query: Float32[Array, "B S T M"] | None,
    state: Float32[Array, "B M K"],
    fresh: Float32[Array, "B M K"] | None,
    document: Int32[Array, "B S T"],
    full: Bool[Array, "B S"],
    *,
    delta: bool,
    own: bool,
    bptt_segments: int | None = None,
) -> tuple[Float32[Array, "B S T K"] | None, Float32[Array, "B M K"]]:
    """The reads of queries from A [M, K], and A after S segments of T tokens, for each of B rows (and heads).

        A_t = a_t A_{t-1} + phi(k_t) u_t^T,   u_t = g_t v_t                              linear rule
                                              u_t = g_t (v_t - (a_t A_{t-1})^T phi(k_t))  delta rule
        r_t = A^T phi(q_t),   A at the start of the segment; with `own`, A after token t

    No loop over tokens is needed: with c_t the product of a up to t, the u of a chunk solve the triangular
    system u_t + g_t sum_{s<t} c_t / c_s (phi_t . phi_s) u_s = g_t (v_t - c_t A_0^T phi_t), whose inverse does not
    depend on A_0 (the UT transform of Yang et al., "Parallelizing Linear Transformers with the Delta Rule", 2024; with
    decay: "Gated Delta Networks", 2025). All chunks are prepared in parallel; each step of the scan over them is a few
    matmuls.

    Args:
        state: A before the first segment.
        fresh: A at the start of a document; None: zeros.
        document: number of documents that began in the segment up to the token; 0: the one that was open before.
        full: segments that are written. Others leave A unchanged, or `fresh` if a document begins in them.
        delta: delta rule instead of linear rule.
        own: tokens also read the writes of their own segment, up to their own.
        bptt_segments: stop the gradient into A before every (n + 1)-th segment; None: never.
    """
    batch, num_segments, length, _ = writes.keys.shape
    num_chunks = -(-length // CHUNK_LENGTH) if delta or own else 1
    chunk = -(-length // num_chunks)
    segments = (batch, num_segments)

    def chunks(x: Array, mode: str = "constant"):
        """[B, S, T, ...] -> [B, S, chunks, C, ...], padded at the end."""
        padding = ((0, 0), (0, 0), (0, num_chunks * chunk - length), *((0, 0),) * (x.ndim - 3))
        return jnp.pad(x, padding, mode=mode).reshape(*segments, num_chunks, chunk, *x.shape[3:])

    counted = chunks(document, "edge")
    before = jnp.concatenate([jnp.zeros_like(counted[:, :, :1, -1]), counted[:, :, :-1, -1]], axis=2)
    own = own and query is not None
    inputs = jax.tree.map(chunks, (writes, query if own else None))
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[3:]), (*inputs, counted - before[..., None]))
    prepared = map_rows(lambda row: _prepare(*row, delta=delta), flat, recompute=False)
    prepared = jax.tree.map(lambda x: x.reshape(*segments, num_chunks, *x.shape[1:]), prepared)

    number = jnp.arange(num_segments, dtype=jnp.int32)
    cut = jnp.zeros_like(number, bool) if bptt_segments is None else number % (bptt_segments + 1) == 0
    by_segment = ((*inputs, prepared), None if own else query, document > 0, full, jnp.broadcast_to(cut, segments))

    def scan_row(row: tuple):
        state, fresh, by_segment = row
        return jax.lax.scan(lambda state, segment: _segment(state, fresh, *segment), state, by_segment)

    def transposed(matrix: Array | None):
        return None if matrix is None else matrix.swapaxes(1, 2)

    final, read = map_rows(scan_row, (transposed(state), transposed(fresh), by_segment), recompute=False)
    if own:
        read = read.reshape(*segments, num_chunks * chunk, -1)[:, :, :length]
    return read, final.swapaxes(1, 2)


def scan_fast_weight_heads(
    writes: Writes,
    query: Float32[Array, "B L H M"] | None,
    state: Float32[Array, "B H M K"],
    fresh: Float32[Array, "H M K"] | None,
    document: Int32[Array, "B S T"],
    full: Bool[Array, "B S"],
    **options,
) -> tuple[Float32[Array, "B L H K"] | None, Float32[Array, "B H M K"]]:
    """`scan_fast_weights` of H heads; `writes` are [B, L, H, ...], L = S T. On a mesh each device takes its own."""
    rows, heads = row_and_head_axes(*state.shape[:2])
    of_row, of_heads = PartitionSpec(rows), PartitionSpec(rows, None, heads)
    matrix = PartitionSpec(rows, heads)
    specs = (of_heads, of_heads, matrix, PartitionSpec(heads), of_row, of_row)
    arrays = (writes, query, state, fresh, document, full)
    return on_each_device(partial(_of_heads, **options), arrays, specs, (of_heads, matrix))


def _of_heads(
    writes: Writes, query: Array | None, state: Array, fresh: Array | None, document: Array, full: Array, **options
):
    """Heads become rows: [B, L, H, ...] -> [B H, S, T, ...]."""
    (batch, heads), (num_segments, length) = state.shape[:2], document.shape[1:]

    def apart(x: Array):
        return jnp.moveaxis(x, 2, 1).reshape(batch * heads, num_segments, length, *x.shape[3:])

    if fresh is not None:
        fresh = jnp.broadcast_to(fresh[None], state.shape).reshape(batch * heads, *fresh.shape[1:])
    read, matrix = scan_fast_weights(
        jax.tree.map(apart, writes),
        None if query is None else apart(query),
        state.reshape(batch * heads, *state.shape[2:]),
        fresh,
        *(jnp.repeat(x, heads, axis=0) for x in (document, full)),
        **options,
    )
    if read is not None:
        read = jnp.moveaxis(read.reshape(batch, heads, num_segments * length, -1), 1, 2)
    return read, matrix.reshape(state.shape)


def _prepare(writes: Writes, query: Array | None, document: Array, *, delta: bool) -> Chunk:
    """The `Chunk` of C tokens."""
    keys, _, gate, log_keep = writes
    place = jnp.arange(gate.shape[0])
    seen = (document[:, None] == document[None, :]) & (place[:, None] >= place[None, :])  # itself included
    ratio, kept = seen.astype(jnp.float32), None  # c_t / c_s, c_t
    if log_keep is not None:
        total = ratio @ log_keep
        ratio = jnp.exp(jnp.where(seen, total[:, None] - total[None, :], jnp.float32(MASKED)))
        kept = jnp.exp(total)
    solve = None
    if delta:
        earlier = jnp.where(place[:, None] > place[None, :], ratio, 0)
        system = gate[:, None] * earlier * (_products(keys, keys))  # its unit diagonal is implied
        right = jnp.diag(gate)
        solve = jax.lax.linalg.triangular_solve(system, right, left_side=True, lower=True, unit_diagonal=True)
    return Chunk(document > 0, kept, ratio[-1], solve, None if query is None else ratio * (_products(query, keys)))


def _products(x: Float32[Array, "C M"], y: Float32[Array, "D M"]) -> Float32[Array, "C D"]:
    """x y^T. Neither pass transposes an operand of width M, which would take twice as long on CPU."""
    return jnp.einsum("cm,dm->cd", x, y)


def _segment(
    state: Array, fresh: Array | None, chunks: tuple, query: Array | None, begun: Array, full: Array, cut: Array
):
    """A after one segment, and the reads of its tokens: chunk by chunk, or all from A at the start of the segment.

    A is transposed here, [K, M]: see `_products`.
    """
    state = jnp.where(cut, jax.lax.stop_gradient(state), state)
    restarted = jnp.zeros_like(state) if fresh is None else fresh

    def project(x: Array, after_reset: Array, state: Array, kept: Array | None = None):
        """A^T x per token, with `fresh` for tokens after a reset and A otherwise, decayed by `kept`."""
        found = jnp.where(after_reset[:, None], 0 if fresh is None else _products(x, fresh), _products(x, state))
        return found if kept is None else kept[:, None] * found

    def step(state: Array, inputs: tuple[Writes, Array | None, Chunk]):
        writes, query, chunk = inputs
        if chunk.solve is None:
            u = writes.gate[:, None] * writes.values
        else:
            u = chunk.solve @ (writes.values - project(writes.keys, chunk.after_reset, state, chunk.kept))
        read = None
        if query is not None and chunk.mix is not None:
            read = project(query, chunk.after_reset, state, chunk.kept) + chunk.mix @ u
        left = jnp.where(chunk.after_reset[-1], restarted, state)
        left = left if chunk.kept is None else chunk.kept[-1] * left
        return left + jnp.einsum("ck,cm->km", chunk.last[:, None] * u, writes.keys), read

    written, read = jax.lax.scan(step, state, chunks)
    if query is not None:
        read = project(query, begun, state)
    return jnp.where(full, written, jnp.where(begun[-1], restarted, state)), read
