"""Tokenizers: bytes, sentencepiece models, tokenizer.json and GGUF files."""
