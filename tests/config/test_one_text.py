"""One text in place of a list of texts is one item or is refused; it is never read letter by letter."""

import pytest

import memgpt_jax as mg
from memgpt_jax.config.experiment import OptimizerConfig
from memgpt_jax.data.tasks.scenes import ScenesConfig


def test_one_text_is_one_item():
    assert mg.DistillConfig(teachers="runs/abc").teachers == ("runs/abc",)
    assert OptimizerConfig(trainable="head.*").trainable == ("head.*",)
    assert OptimizerConfig(lr_multipliers="head.*=2").lr_multipliers == ("head.*=2",)
    assert mg.EncoderConfig(heads="masked", memory=mg.NoMemoryConfig()).heads == ("masked",)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: mg.LabelHeadConfig(output_names="abc"), "head.output_names"),
        (lambda: mg.LabelHeadConfig(class_weights="12"), "head.class_weights"),
        (lambda: mg.PatchesConfig(stem="48"), "features.stem"),
        (lambda: mg.RatingsConfig(levels="12"), "data.levels"),
        (lambda: mg.GraphQuestionsConfig(relations="by"), "data.relations"),
        (lambda: mg.CaptionsConfig(words="a=b"), "data.words"),
        (lambda: ScenesConfig(words="there is"), "data.words"),
    ],
)
def test_one_text_is_refused_by_name(make, name):
    with pytest.raises(ValueError, match=rf"{name} must be a list"):
        make()
