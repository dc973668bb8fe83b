"""Files of the catalogue, of interactions and of given SIDs. No rule is defined here."""

from sidmill.formats.file_names import CATALOGUES
from sidmill.interactions.find import find as find_interactions


def own_sids():
    """The file of SIDs that exist, where the config chooses or compares them."""
    members = [*config["comparison"]["members"], *config["sweep"]["anchors"]]
    if config["quantizer"] != "given" and "given" not in members:
        return []
    path = config["given"]["path"]
    if Path(path).resolve().is_relative_to(Path("results").resolve()):
        raise SidmillError(
            f"given.path: {path} lies in results/, which this run writes: move it elsewhere, for "
            f"instance to given/{Path(path).name}"
        )
    return expand_one(path, "given.path")


def sids_to_keep():
    """The SIDs outside of which items are left out of the catalogue: file and offset of its ids; or none."""
    if not OWN_SIDS or config["given"]["on_missing_sids"] == "error":
        return {"given_sids": None}
    return {"given_sids": [OWN_SIDS, config["given"]["id_offset"]]}


def item_text():
    """The texts of the items; none where items.path is null."""
    return "results/items/text.parquet" if config["items"]["path"] else []


def item_ids():
    """A file with the ids of all items."""
    return item_text() or "results/given/codes.parquet"


def catalogue_files(wildcards):
    """The files of the catalogue; where there is none, nothing that is made of text can be asked for."""
    if config["items"]["path"] is None:
        from sidmill.items.render import NO_CATALOGUE

        raise WorkflowError(NO_CATALOGUE)
    return CATALOGUE


def interaction_files(wildcards):
    """The files of the interaction log."""
    named("interactions.path", "your interaction log, a file, a folder or a glob")
    return INTERACTIONS


def given_files(wildcards):
    """The file of SIDs that exist."""
    named("given.path", "the file of your SIDs (docs/given-sids.md)")
    return local(OWN_SIDS or [])


# Files of the user, and of the demo, are read on this machine, wherever results are kept (`local`).
CATALOGUE = local(
    (
        or_note(expand_path, config["items"]["path"], CATALOGUES, "items.path")
        if config["items"]["path"]
        else None
    )
    or []
)
INTERACTIONS = local(or_note(find_interactions, config["interactions"]["path"]) or [])
OWN_SIDS = or_note(own_sids)
