r"""Is "there is one tower with a blue block on top" true of a scene: generated statements, the nodes of a graph.

Words are encoded apart from boxes and objects; their nodes exchange messages.

Command: python experiments/train.py nlvr_statements --workdir runs/nlvr_statements
         both fusions in one table: python experiments/ablate.py nlvr_statements --workdir runs/nlvr_fusion \
             --sweep config=nlvr_statements,nlvr_statements_attention seed=0,1,2
Time:    20 minutes of CPU time (Python 3.11, jax 0.10.2, one busy core of an AMD EPYC)
Result:  accuracy 0.962 on 1,024 held-out statements, seed 0 alone; after 2,400 steps (--training.steps 2400, 188 s)
         0.725, after 30,000 (--training.steps 30000, 40 minutes) 0.966, and 0.956 on 10,240 statements (evaluate.py
         with --split test --change evaluation.num_batches=160). The scene or the sentence alone gives 0.5
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.heads import HeadedConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import EncoderConfig
from memgpt_jax.data.scenes import EDGES
from memgpt_jax.data.tasks.scenes import ScenesConfig
from memgpt_jax.models.heads import GraphHeadConfig


def config() -> ExperimentConfig:
    data = ScenesConfig(token_types=True, edges=True)
    backbone = EncoderConfig(
        vocab_size=256,  # with room for the words of sentences of people
        d_model=64,
        num_layers=1,
        num_heads=4,
        segment_length=data.row_length,
        position="learned",
        num_positions=data.row_length,
        features=data.features_config,
        token_types=2,
        separate_types=True,
        memory=NoMemoryConfig(),
        heads=(),
    )
    head = GraphHeadConfig(edge_kinds=len(EDGES), rounds=5, pool="attention")
    return ExperimentConfig(
        model=HeadedConfig(backbone=backbone, head=head),
        data=data,
        optimizer=OptimizerConfig(learning_rate=3e-3, warmup_steps=100, gate_lr_multiplier=1.0),
        training=TrainingConfig(steps=20000, batch_size=32, carry_state=False, steps_per_call=10),
        evaluation=EvaluationConfig(batch_size=64, num_batches=16, chunk_length=data.row_length),
    )
