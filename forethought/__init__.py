"""Forethought teaches language models to think about safety before they answer, and proves what that changed."""

__version__ = "0.1.0"
