"""Texts before they are tokenized: cleaning and scrubbing with a map to the original, sentences, augmentation."""

from memgpt_jax.data.text.augmentation import Augmentation
from memgpt_jax.data.text.back_translation import Paraphrase, back_translate
from memgpt_jax.data.text.cleaned import Cleaned, compose
from memgpt_jax.data.text.cleaning import clean, clean_words
from memgpt_jax.data.text.scrubbing import personal, scrub
from memgpt_jax.data.text.sentences import sentences
from memgpt_jax.data.text.vectors import write_vectors

__all__ = [
    "Augmentation",
    "Cleaned",
    "Paraphrase",
    "back_translate",
    "clean",
    "clean_words",
    "compose",
    "personal",
    "scrub",
    "sentences",
    "write_vectors",
]
