"""JSON Schema of the settings that the Python interface takes as well.

The package is installed without workflow/schemas; a test holds these against it.
"""

SEED = {
    "type": "integer",
    "minimum": 0,
    "maximum": 4294967295,
    "description": "a whole number from 0 to 4294967295",
}
ENCODING = {
    "device": {
        "type": "string",
        "pattern": r"^(auto|cpu(,cpu)*|cuda(:[0-9]+)?(,cuda:[0-9]+)*)$",
        "description": "auto, cpu, cuda, cuda:1, or several such as cuda:0,cuda:1",
    },
    "memory_mb": {"type": "integer", "minimum": 16, "description": "MiB, at least 16"},
}
RQKMEANS = {
    "n_levels": {
        "type": "integer",
        "minimum": 1,
        "maximum": 26,
        "description": "tokens per SID, 1 to 26",
    },
    "codebook_size": {
        "type": ["integer", "array"],
        "minimum": 1,
        "maximum": 1048576,
        "minItems": 1,
        "items": {"type": "integer", "minimum": 1, "maximum": 1048576},
        "description": "codes per level: one number, or one for each level",
    },
    "n_iter": {"type": "integer", "minimum": 1, "description": "passes over the vectors per level"},
    "tolerance": {
        "type": "number",
        "minimum": 0,
        "exclusiveMaximum": 1,
        "description": "a share, such as 0.0003; 0 for none",
    },
    "max_points_per_centroid": {
        "type": ["integer", "null"],
        "minimum": 1,
        "description": "vectors per code, or null for all",
    },
    "balance": {"enum": ["none", "sinkhorn", "capacity"]},
    "max_load": {"type": "number", "exclusiveMinimum": 1, "description": "a number above 1"},
    **ENCODING,
}
