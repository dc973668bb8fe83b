"""Vectors in the containers that other programs write; ``opened`` is the way in."""
