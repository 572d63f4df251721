"""Retrieval: the abstracts that answer a question about aerodynamics, Cranfield, from a pretrained encoder.

Four of five queries train, of these every tenth is the validation split; every fifth query is the test split. All 1,400
documents are ranked for each query by the products of the vectors.

Command: export MEMGPT_DATA=FOLDER
         python experiments/train.py cranfield --workdir runs/cranfield
         python experiments/evaluate.py runs/cranfield --split test
         without training: python experiments/zero_shot.py cranfield --pretrained MODEL --evaluation.split test
         with BM25: --data.bm25_weight 0.5, or for a run --change data.bm25_weight=0.5
Time:    5 minutes of CPU time (Python 3.11, jax 0.10.2, one core of an Intel Xeon, shared)
Result:  nDCG@10 on the 45 test queries 0.426, 0.454, 0.440 (seeds 0, 1, 2), without training 0.433: the gain is within
         the spread of the seeds; average precision 0.354, 0.376, 0.363, without training 0.356. nDCG@10 on the 18
         validation queries 0.367, 0.356, 0.363, without training 0.324. From all-MiniLM-L6-v2 (22.7 million
         parameters). With BM25 of weight 0.5, nDCG@10 on the test queries 0.448 (seed 0), without training 0.468
"""

from memgpt_jax.config.experiment import ExperimentConfig
from memgpt_jax.config.fields import with_fields
from memgpt_jax.data.tasks.retrieval import RetrievalConfig
from memgpt_jax.models.heads import VectorHeadConfig
from memgpt_jax.studies.command_line import load_config

FOLDER = "$MEMGPT_DATA/retrieval/cranfield"


def config() -> ExperimentConfig:
    data = RetrievalConfig(
        train=f"{FOLDER}/cran.qry.xml",
        documents=f"{FOLDER}/cran.all.1400.xml",
        judgements=f"{FOLDER}/cranqrel.trec.txt",
        form="trec",
        text_column="title",
        id_column="docno",
        query_id_column="number",
        test_every=5,
    )
    changes = {
        "data": data,
        "model.backbone.segment_length": 128,
        "model.head": VectorHeadConfig(),
        "model.backbone.dropout": 0.0,
        "training.steps": 60,
        "training.batch_size": 32,
        "optimizer.learning_rate": 0.00002,
        "optimizer.warmup_steps": 10,
        "evaluation.chunk_length": 128,
    }
    return with_fields(load_config("sst2"), changes)
