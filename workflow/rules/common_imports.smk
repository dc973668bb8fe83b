"""Files of a published data set. No rule is defined here."""

DATASET = (
    "the folder or archive of the published files that you downloaded (sidmill import --list says "
    "which)"
)


def imported_files(wildcards):
    """The files of the data set."""
    path = named("imported.path", DATASET)
    if not Path(path).exists():
        raise WorkflowError(f"imported.path: no such file or folder: {path}")
    return files_of(path) if Path(path).is_dir() else [path]


def imported_source(wildcards):
    """The published form that is read."""
    names = dict(wildcards.items())
    return {"source": names.get("source") or names["searched"]}
