"""Readers and writers of containers: parquet, tensors, HDF5, JSON, text; no file of ours."""
