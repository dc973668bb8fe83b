"""How the names of catalogues and of logs end. A workflow lists files by this, and opens none."""

COMPRESSIONS = (".gz", ".zst")
KINDS = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
CATALOGUES = tuple(kind + end for kind in KINDS for end in ("", *COMPRESSIONS))
LOGS = (*CATALOGUES, *(f".inter{end}" for end in ("", *COMPRESSIONS)))
