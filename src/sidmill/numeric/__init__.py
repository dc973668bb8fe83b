"""Numerics that stages share: blocks of rows, nearest codewords, exact search."""
