"""bAbI's question answering: a story streams through memory a sentence at a time, and each question is asked in it.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py babi --data.tasks 1 --workdir runs/babi-1
         with the 10,000 questions of FOLDER/babi/en-10k (unpacked): --data.path FOLDER/babi/en-10k
         all 20 tasks in one model: --data.tasks 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20
         --data.show_answers False --training.sequence_length 512 --training.steps 2500 --model.memory.memory_size 512
Time:    three seeds together, wall time: task 1 583 s, task 20 477 s, tasks 4 and 15 with 10,000 questions 1,336 and
         1,499 s; all 20 tasks in one model, one seed: 5,207 s (Python 3.11, jax 0.10.2, one core of an AMD EPYC)
Result:  accuracy on the 1,000 test questions, one model per task, seeds 0, 1, 2 (docs/results/LEDGER.md). With 1,000
         questions for training: task 1 0.973, 0.977, 0.973 (`--training.steps 400`), task 20 0.963, 0.967, 0.963
         (`--training.steps 200`). With 10,000 and `--training.steps 600`: task 4 1.000 each, task 15 0.996, 0.979,
         0.991. All 20 tasks in one model, seed 0: 17 are below 0.95.
         Not in the ledger, seed 0 alone, 1,000 questions, `--training.steps 200`: task 4 0.905, task 15 0.834 (in
         training 0.997 and 0.990).
         Sentences matter. With `--data.sentence_length None --model.window_size 16 --training.sequence_length 192`,
         task 1 ends at 0.451 (1,000 questions, 500 steps, 1.000 in training) or 0.623 (10,000 questions, 400 steps).
         Answers stand in the story after their questions, where Memory Networks do not see them: to hide them,
         `--data.show_answers False`.
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig, OptimizerConfig, TrainingConfig
from memgpt_jax.config.memory import KVMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.babi import BabiConfig


def config() -> ExperimentConfig:
    # A sentence is a segment and fills the window: what it says about a person is put together in one place.
    data = BabiConfig(path="$MEMGPT_DATA/babi/en", tasks=(1,), sentence_length=8, long_stories="cut")
    return ExperimentConfig(
        model=ModelConfig(
            vocab_size=data.num_words,
            d_model=64,
            num_layers=2,
            num_heads=4,
            window_size=8,
            segment_length=8,
            memory=KVMemoryConfig(memory_size=64, recency_bias=True),
            dropout=0.1,
        ),
        data=data,
        optimizer=OptimizerConfig(learning_rate=2e-3, warmup_steps=50),
        training=TrainingConfig(steps=250, batch_size=32, sequence_length=256, carry_state=False),
        evaluation=EvaluationConfig(split="test", batch_size=32),
    )
