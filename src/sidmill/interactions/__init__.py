"""Behaviour: who consumed what, read from what users have and checked."""
