"""What files promise of each other: the same ids in the same order, SIDs that agree, counts."""

import fnmatch
import json
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sidmill.formats import (
    code_files,
    given_sids,
    item_text,
    ledger_file,
    quantizer_file,
    sid_text,
    trie_file,
    vector_store,
    version_folder,
)
from sidmill.formats.embedding_shards import FINGERPRINT_KEY
from sidmill.io import json_report, parquet
from sidmill.numeric import sid_trie
from sidmill.report.check import import_promises, promise, sweep_promises
from sidmill.report.check.promise import (
    CODES,
    IDS,
    PID2SID,
    QUANTIZER,
    TEXT,
    Paths,
    Promise,
    codes_of,
    pids,
)

RATE_TOLERANCE = 1e-9
FUSED_IDS = "fused_ids.parquet"
RUN = "run.json"


def find(paths: Paths) -> Iterator[Promise]:
    """List the promises between the files of a folder, by the names they have in it.

    Ids and SIDs of a file are read once for all promises of one call.
    """
    promise.clear()
    paths = _in_use(paths)
    yield from _order_of_items(paths)
    yield from _quantizers(paths)
    yield from _sids(paths)
    yield from _recommendations(paths)
    yield from _answers(paths)
    yield from sweep_promises.find(paths)
    yield from import_promises.find(paths)
    if {TEXT, "items/rejects.parquet"} <= set(paths):
        yield Promise(
            "every row of the catalogue is an item or a reject",
            "items/rejects.parquet",
            partial(_rejects, paths[TEXT], paths["items/rejects.parquet"]),
        )
    for name in ("version.json", "manifest.json"):
        if name in paths:
            says = f"{name} has the size and the SHA-256 of each file"
            yield Promise(says, name, partial(_manifest, paths[name]))


def _in_use(paths: Paths) -> Paths:
    """Leave out what an earlier run or sweep left behind: nothing in use was made from it.

    Fused vectors remain in a folder when ``fuse.method`` is set to none again, the files of a
    category level without its field, and the folders of tokenizers when they are taken out of
    ``sweep``.
    """
    unused = sweep_promises.unused(paths)
    trained_on = {_ids_of(name, paths) for name in paths if Path(name).name == QUANTIZER}
    is_fused = f"items/{FUSED_IDS}" in trained_on
    if not is_fused and IDS in trained_on:
        unused |= set(fnmatch.filter(paths, "items/fused*"))
        unused |= set(fnmatch.filter(paths, "*/fold_codes.parquet"))
    unused |= _older_than_the_run(paths)
    return {name: path for name, path in paths.items() if name not in unused}


def _older_than_the_run(paths: Paths) -> set[str]:
    """Files that the settings of run.json do not ask for, and that were made before it."""
    if RUN not in paths:
        return set()
    settings = json_report.read(paths[RUN]).get("settings", {})
    fuse, level = settings.get("fuse", {}), settings.get("category_level", {})
    patterns = []
    if fuse.get("method") == "none":
        patterns += ["similarity/*", "items/fused*", "*/fold_codes.parquet"]
    if fuse.get("use") == "sids":
        patterns.append("similarity/*")
    if fuse.get("folds") == 1:
        patterns += ["items/fused_folds*", "*/fold_codes.parquet"]
    if "field" in level and level["field"] is None:
        patterns += ["items/categories.parquet", "items/category_level*", "items/residual*"]
    written = paths[RUN].stat().st_mtime
    unasked = {name for pattern in patterns for name in fnmatch.filter(paths, pattern)}
    return {name for name in unasked if paths[name].stat().st_mtime < written}


def _ids_of(quantizer: str, paths: Paths) -> str | None:
    """The ids of the vectors that a quantizer was trained on; None: not to be told."""
    folder = quantizer.rpartition("/")[0]
    if folder == "published":
        return None
    fingerprint = quantizer_file.read(paths[quantizer], without_codebooks=True).fingerprint
    if folder == "similarity":
        return f"items/{FUSED_IDS}"  # of codes that are compared, always fused
    if not any(key.startswith(quantizer_file.FUSE) for key in fingerprint):
        return IDS
    fusion = sweep_promises.fusion_of(folder)
    return f"sweep/{fusion}/{FUSED_IDS}" if fusion else f"items/{FUSED_IDS}"


def _order_of_items(paths: Paths) -> Iterator[Promise]:
    """Files of items have the ids of the first of them, in its order."""
    # One row for each item.
    of_items = [name for name in (TEXT, IDS, "items/embeddings.parquet", PID2SID) if name in paths]
    others = (CODES, PID2SID, FUSED_IDS, "residual_ids.parquet", "categories.parquet")
    of_items += [name for name in paths if Path(name).name in others and name not in of_items]
    for name in of_items[1:]:
        yield Promise(
            f"{name} has the ids of {of_items[0]}, in the same order",
            name,
            partial(_same_ids, paths[of_items[0]], paths[name]),
        )

    # A row for each item and fold, and vectors beside their ids.
    for name in paths:
        if of_items and Path(name).name in ("fused_folds_ids.parquet", "fold_codes.parquet"):
            yield Promise(
                f"{name} has the ids of {of_items[0]}, once for each fold",
                name,
                partial(_same_folds, paths[of_items[0]], paths[name]),
            )
    for name in paths:
        ids = vector_store.IDS_BESIDE.get(Path(name).name)
        beside = str(Path(name).with_name(ids)) if ids else None
        if beside in paths:
            yield Promise(
                f"{name} has a row for each id",
                name,
                partial(_shape, paths[name], paths[beside]),
            )


def _quantizers(paths: Paths) -> Iterator[Promise]:
    for name in paths:
        folder, _, file = name.rpartition("/")
        if file != QUANTIZER or folder == "published":
            continue
        for codes in (f"{folder}/{CODES}", f"{folder}/fold_codes.parquet"):
            if codes in paths:
                yield Promise(
                    f"{codes} has the levels and codebook sizes of {name}",
                    codes,
                    partial(_sizes, paths[name], paths[codes]),
                )
        ids = _ids_of(name, paths)
        if ids in paths:
            yield Promise(
                f"{name} was trained on the embeddings of {ids}",
                name,
                partial(_fingerprint, paths[name], paths[ids]),
            )


def _sids(paths: Paths) -> Iterator[Promise]:
    """Pairs of codes and SIDs, and the files that repeat the SIDs in another form."""
    # Of each quantizer: SIDs against codes and the counts of the resolution.
    for name in paths:
        if Path(name).name != PID2SID:
            continue
        yield Promise(
            f"tokens of {name} are those of its SIDs", name, partial(_tokens, paths[name])
        )
        resolution = str(Path(name).with_name("resolution.json"))
        codes = str(Path(name).with_name(CODES))
        if {resolution, codes} <= set(paths):
            yield Promise(
                f"{resolution} counts the items whose SID differs from their codes",
                resolution,
                partial(_moved, paths[name], paths[codes], paths[resolution]),
            )
        if resolution in paths:
            yield Promise(
                f"SIDs of {name} are unique, where {resolution} says so",
                name,
                partial(_unique, paths[name], paths[resolution]),
            )

    # Of the chosen SIDs: the files that follow from them.
    if PID2SID not in paths:
        return
    pid2sid = paths[PID2SID]
    checks = {
        "index.json": ("has the SIDs", _index),
        "trie.safetensors": ("has the SIDs", _trie),
        "quality.json": ("counts the items and the SIDs", _quality),
        "ledger.parquet": ("has the items and the SIDs, removed ones apart", _ledger),
    }
    for name, (what, fault) in checks.items():
        if name in paths:
            yield Promise(f"{name} {what} of {PID2SID}", name, partial(fault, pid2sid, paths[name]))


def _recommendations(paths: Paths) -> Iterator[Promise]:
    sequences = "interactions/sequences.parquet"
    items = paths.get(PID2SID) or paths.get(TEXT)
    if sequences in paths and items:
        yield Promise(
            f"items of {sequences} are in the catalogue",
            sequences,
            partial(_histories, paths[sequences], items),
        )
    for name in paths:
        if Path(name).name == "topk.parquet" and PID2SID in paths:
            own = f"{Path(name).parent.name}/{PID2SID}"  # SIDs of another quantizer
            yield Promise(
                f"items of {name} are in the catalogue, best first, with their SIDs",
                name,
                partial(_topk_of_either, paths[name], paths.get(own), paths[PID2SID]),
            )


def _answers(paths: Paths) -> Iterator[Promise]:
    name = "retrieval/answers.parquet"
    if name not in paths:
        return
    says = f"{name} has ranks from 1, best first, one row per query and passage"
    yield Promise(says, name, partial(_ranks, paths[name]))
    for column, text in (("pid", "corpus/text.parquet"), ("qid", "queries/text.parquet")):
        if text in paths:
            yield Promise(
                f"every {column} of {name} is in {text}",
                name,
                partial(_known, paths[name], column, paths[text]),
            )


def _same_ids(reference: Path, path: Path) -> str | None:
    wanted, found = pids(reference), pids(path)
    if len(wanted) != len(found):
        return f"{len(found):,} ids, {reference.name} has {len(wanted):,}"
    if wanted.type != found.type:
        return f"ids are {found.type}, in {reference.name} {wanted.type}"
    if wanted.equals(found):
        return None
    row = pc.index(pc.equal(wanted, found), False).as_py()
    return f"row {row} has the id {found[row]}, in {reference.name} {wanted[row]}"


def _same_folds(reference: Path, path: Path) -> str | None:
    wanted, found = pids(reference).combine_chunks(), pids(path).combine_chunks()
    n_folds, rest = divmod(len(found), max(len(wanted), 1))
    if rest or not n_folds:
        return f"{len(found):,} ids, no multiple of the {len(wanted):,} of {reference.name}"
    for fold in range(n_folds):
        if not found.slice(fold * len(wanted), len(wanted)).equals(wanted):
            return f"fold {fold} has other ids, or another order, than {reference.name}"
    return None


def _shape(vectors: Path, ids: Path) -> str | None:
    rows, count = len(vector_store.open_npy(vectors)), len(pids(ids))
    return None if rows == count else f"{rows:,} rows for {count:,} ids of {ids.name}"


def _sizes(quantizer: Path, codes: Path) -> str | None:
    wanted = quantizer_file.read(quantizer, without_codebooks=True).codebook_sizes
    found = codes_of(codes, "codes").sizes
    return None if wanted == found else f"codebook sizes {found}, the quantizer has {wanted}"


def _fingerprint(quantizer: Path, ids: Path) -> str | None:
    file = parquet.open_file(ids, {"pid": parquet.is_pid})
    vectors = parquet.metadata_json(file, FINGERPRINT_KEY)
    trained = quantizer_file.read(quantizer, without_codebooks=True).fingerprint
    if not vectors or not trained or vectors == trained:
        return None
    differing = [
        key for key in sorted({*vectors, *trained}) if vectors.get(key) != trained.get(key)
    ]
    return f"trained on other embeddings than those of {ids.name}: {', '.join(differing)} differ"


def _moved(pid2sid: Path, codes: Path, resolution: Path) -> str | None:
    before, after = codes_of(codes, "codes").codes, codes_of(pid2sid, "sid").codes
    moved = int((after[:, : before.shape[1]] != before).any(axis=1).sum())
    told = json_report.read(resolution)["items_moved"]
    if after.shape[1] > before.shape[1] or moved == told:  # a suffix moves no code
        return None
    return f"items_moved is {told:,}; {moved:,} SIDs differ from the codes"


def _unique(pid2sid: Path, resolution: Path) -> str | None:
    facts = json_report.read(resolution)
    if facts["strategy"] == "none" or facts.get("identical_text") == "share":
        return None
    sids = codes_of(pid2sid, "sid").codes
    shared = len(sids) - len(np.unique(sids, axis=0))
    return f"{shared:,} items share a SID with another item" if shared else None


def _tokens(pid2sid: Path) -> str | None:
    known = codes_of(pid2sid, "sid")
    with parquet.naming(pid2sid):
        file, row = parquet.Parquet(pid2sid), 0
        if "tokens" not in file.schema_arrow.names:  # of an earlier version
            return None
        for batch in file.iter_batches(columns=["tokens"]):
            found = batch.column(0).cast(pa.large_string())
            wanted = sid_text.render(known.codes[row : row + len(found)])
            if not found.equals(wanted):
                odd = pc.index(pc.fill_null(pc.equal(found, wanted), False), False).as_py()
                return (
                    f"item {known.ids[row + odd]} has the tokens {found[odd].as_py()!r}, and the "
                    f"SID {known.codes[row + odd].tolist()}"
                )
            row += len(found)
    return None


def _index(pid2sid: Path, index: Path) -> str | None:
    wanted = codes_of(pid2sid, "sid")
    found = given_sids.read(index, integer=pa.types.is_integer(wanted.ids.type))
    if not wanted.ids.equals(found.ids):
        return f"its ids, or their order, are not those of {pid2sid.name}"
    return _first_difference(wanted, found.codes, pid2sid)


def _trie(pid2sid: Path, trie: Path) -> str | None:
    wanted, tree = codes_of(pid2sid, "sid"), trie_file.read(trie, pid2sid)
    return _first_difference(wanted, sid_trie.codes_of(tree, tree.sid_of_item).numpy(), pid2sid)


def _first_difference(wanted: code_files.Codes, found: np.ndarray, pid2sid: Path) -> str | None:
    if found.shape != wanted.codes.shape:
        return f"SIDs of shape {found.shape}, {pid2sid.name} has {wanted.codes.shape}"
    rows = np.flatnonzero((found != wanted.codes).any(axis=1))
    if not len(rows):
        return None
    row = int(rows[0])
    return (
        f"item {wanted.ids[row]} has the SID {found[row].tolist()}, in {pid2sid.name} "
        f"{wanted.codes[row].tolist()}"
    )


def _quality(pid2sid: Path, quality: Path) -> str | None:
    figures, sids = json_report.read(quality), codes_of(pid2sid, "sid").codes
    distinct = len(np.unique(sids, axis=0))
    rate = (len(sids) - distinct) / max(len(sids), 1)
    if figures["items"] != len(sids):
        return f"items is {figures['items']:,}, {pid2sid.name} has {len(sids):,}"
    if figures["after"]["distinct"] != distinct:
        return (
            f"after.distinct is {figures['after']['distinct']:,}, {pid2sid.name} has {distinct:,}"
        )
    if abs(figures["after"]["collision_rate"] - rate) > RATE_TOLERANCE:
        return f"after.collision_rate is {figures['after']['collision_rate']}, it should be {rate}"
    return None


def _ledger(pid2sid: Path, ledger: Path) -> str | None:
    wanted, known = codes_of(pid2sid, "sid"), ledger_file.read(ledger)
    if known.n_live != len(wanted.ids):
        return f"{known.n_live:,} items in the catalogue, {pid2sid.name} has {len(wanted.ids):,}"
    if not wanted.ids.equals(known.ids.slice(0, known.n_live)):
        return f"its ids, or their order, are not those of {pid2sid.name}"
    return _first_difference(wanted, known.sids[: known.n_live], pid2sid)


def _histories(sequences: Path, items: Path) -> str | None:
    known = pids(items).combine_chunks()
    row = 0
    with parquet.naming(sequences):
        file = parquet.Parquet(sequences)
        columns = ["user_id", "item_ids", "splits"]
        for batch in file.iter_batches(columns=columns):
            ids, splits = batch.column(1), batch.column(2)
            lengths, marks = pc.list_value_length(ids), pc.list_value_length(splits)
            if not lengths.equals(marks):
                odd = pc.index(pc.equal(lengths, marks), False).as_py()
                return f"row {row + odd}: {lengths[odd]} items and {marks[odd]} splits"
            if ids.type.value_type != known.type:
                return f"item_ids are {ids.type.value_type}, in {items.name} {known.type}"
            odd = pc.index(pc.is_in(ids.flatten(), value_set=known), False).as_py()
            if odd >= 0:
                return f"item {ids.flatten()[odd]} is not in {items.name}"
            row += batch.num_rows
    return None


def _topk_of_either(topk: Path, own: Path | None, chosen: Path) -> str | None:
    """SIDs of the quantizer that the path names, or of the run, whose quantizer it may be."""
    fault = _topk(topk, chosen)
    return fault if fault is None or own is None else _topk(topk, own)


def _topk(topk: Path, pid2sid: Path) -> str | None:
    known = codes_of(pid2sid, "sid")
    ids = known.ids.combine_chunks()
    with parquet.naming(topk):
        for batch in parquet.Parquet(topk).iter_batches():
            # Three lists of one length per user.
            table = pa.table(batch)
            items, scores, sids = (
                table[name].combine_chunks() for name in ("item_ids", "scores", "sids")
            )
            lengths = pc.list_value_length(items)
            others = (pc.list_value_length(scores), pc.list_value_length(sids))
            if not all(lengths.equals(other) for other in others):
                return "items, scores and SIDs of a user differ in number"

            # Items of the catalogue, with their SIDs.
            rows = pc.index_in(items.flatten(), value_set=ids)
            if rows.null_count:
                odd = pc.index(pc.is_null(rows), True).as_py()
                return f"item {items.flatten()[odd]} is not in {pid2sid.name}"
            given = parquet.matrix(
                topk, pa.chunked_array([sids.flatten()]), "sids", "make it again"
            )
            wanted = known.codes[rows.to_numpy(zero_copy_only=False)]
            if given.shape != wanted.shape or (given != wanted).any():
                odd = int(np.flatnonzero((given != wanted).any(axis=1))[0]) if len(given) else 0
                return f"item {items.flatten()[odd]} has another SID than in {pid2sid.name}"

            # Best first.
            for user, values in zip(table["user_id"].to_pylist(), scores.to_pylist(), strict=True):
                if any(first < second for first, second in pairwise(values)):
                    return f"scores of user {json.dumps(user)} are not in descending order"
    return None


def _ranks(answers: Path) -> str | None:
    # Rows by query and rank.
    with parquet.naming(answers):
        table = parquet.Parquet(answers).read(columns=["qid", "pid", "rank", "score"])
    queries = pc.dictionary_encode(table["qid"]).combine_chunks().indices.to_numpy()
    ranks, scores = table["rank"].to_numpy(), table["score"].to_numpy()
    order = np.lexsort((ranks, queries))

    # Ranks of a query are 1, 2, 3, ...
    begins = np.r_[True, np.diff(queries[order]) != 0] if len(order) else np.empty(0, bool)
    starts = np.flatnonzero(begins)
    lengths = np.diff([*starts, len(order)])
    wanted = np.arange(1, len(order) + 1) - np.repeat(starts, lengths)
    odd = np.flatnonzero(ranks[order] != wanted)
    if len(odd):
        row = int(order[odd[0]])
        return f"query {table['qid'][row]}: ranks are not 1, 2, 3, ...: found {ranks[row]}"

    # Scores fall with the rank, and no passage comes twice.
    falls = np.flatnonzero((np.diff(scores[order]) > 0) & ~begins[1:])
    if len(falls):
        row = int(order[falls[0]])
        rank = ranks[row]
        return f"query {table['qid'][row]}: rank {rank + 1} has a higher score than rank {rank}"
    pairs = table.group_by(["qid", "pid"]).aggregate([])
    repeated = len(table) - len(pairs)
    return f"{repeated:,} rows repeat the passage of a query" if repeated else None


def _known(answers: Path, column: str, text: Path) -> str | None:
    with parquet.naming(answers):
        ids = pc.unique(parquet.Parquet(answers).read(columns=[column])[column])
    known = pids(text).cast(pa.string()).combine_chunks()
    missing = ids.filter(pc.invert(pc.is_in(ids, value_set=known)))
    return (
        f"{column} {missing[0]} is not in {text.parent.name}/{text.name}" if len(missing) else None
    )


def _rejects(text: Path, rejects: Path) -> str | None:
    read, items = item_text.rows_read(rejects), item_text.count(text)
    with parquet.naming(rejects):
        rows = parquet.Parquet(rejects).metadata.num_rows
    if read is None or read == items + rows:
        return None
    found = f"{items:,} items and {rows:,} rejects are {items + rows:,}"
    return f"the catalogue had {read:,} rows; {found}"


def _manifest(path: Path) -> str | None:
    manifest = version_folder.read(path, "make it again")
    for name, entry in sorted(manifest["files"].items()):
        file = Path(entry["source"]) if "source" in entry else path.parent / name
        if not file.is_file():
            return f"{name} is missing"
        facts = version_folder.facts_of(file)
        if facts != {key: entry.get(key) for key in facts}:
            return f"{name} was changed after {path.name} was written"
    return None
