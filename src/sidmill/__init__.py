"""SIDMill: item text to semantic IDs for generative recommendation."""

from sidmill.core import threads

threads.prepare()  # before torch, faiss or NumPy is loaded
