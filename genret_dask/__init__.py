"""Scaling laws of generative retrieval, from a YAML file to a cube of logits."""

__version__ = "0.1.0"
