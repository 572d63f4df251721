"""Generation with live memory: the memory is read and written while decoding, token by token."""

from memgpt_jax.generation.decode import Generated as Generated
from memgpt_jax.generation.decode import generate as generate
from memgpt_jax.generation.sampling import check_sampling as check_sampling
from memgpt_jax.generation.sampling import keep_top_k as keep_top_k
from memgpt_jax.generation.sampling import keep_top_p as keep_top_p
from memgpt_jax.generation.sampling import sample as sample
