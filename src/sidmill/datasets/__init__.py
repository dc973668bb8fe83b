"""Datasets of SID tokens for language models, and the vocabulary to train on them."""
