"""The last word of a passage: the first half of LAMBADA's test set, a pretrained decoder without training.

The window of 256 tokens is full attention. `--model.window_size 32 --model.segment_length 32` reads with a window of 32
tokens; `--model.memory kv` adds a memory, which changes no output before it is trained.

Command: export MEMGPT_DATA=FOLDER
         python experiments/zero_shot.py lambada --pretrained MODEL
Time:    9 minutes of CPU time for 500 passages (Python 3.11, jax 0.10.2, one core of an AMD EPYC, shared), with
         --model.segment_length 64 --evaluation.chunk_length 64 --evaluation.max_documents 500
Result:  of the first 500 passages the last word of 0.294 is right (95% interval 0.254 to 0.336), by
         SmolLM2-135M-Instruct (4 bits a weight); with a start token before the passage (--data.start_token True) 0.282.
         Adapters of rank 8, trained on 1,000 of the passages, 45 steps, seed 0, 25 minutes on one shared core: of the
         515 passages that are held out (every fifth), 0.468 (0.425 to 0.509), by python experiments/train.py lambada
         --pretrained MODEL --data.train FILE --data.valid None --data.valid_every 5 --data.max_examples 1000
         --model.segment_length 64 --model.adapter_rank 8 --optimizer.trainable lora --optimizer.learning_rate 3e-4
         --optimizer.warmup_steps 5 --optimizer.weight_decay 0 --training.steps 45 --training.batch_size 8
         --training.sequence_length 256, where FILE is the file of passages
"""

from memgpt_jax.config.experiment import EvaluationConfig, ExperimentConfig
from memgpt_jax.config.memory import NoMemoryConfig
from memgpt_jax.config.model import ModelConfig
from memgpt_jax.data.tasks.text_pairs import TextPairsConfig


def config() -> ExperimentConfig:
    data = TextPairsConfig(
        valid="$MEMGPT_DATA/lambada/lambada_first2576.jsonl",
        form="lambada",
        prompt="{source} ",
        metrics=("begins",),
        start_token=False,
        max_new_tokens=6,
    )
    return ExperimentConfig(
        model=ModelConfig(memory=NoMemoryConfig(), window_size=256, segment_length=256),
        data=data,
        pretrained="HuggingFaceTB/SmolLM2-135M-Instruct",
        evaluation=EvaluationConfig(batch_size=16, chunk_length=256, max_tokens=None),
    )
