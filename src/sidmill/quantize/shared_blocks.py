"""Which process searches for which rows of a block, and how all of them learn what was found.

Every process keeps the same clusters. For each block it reads and searches its own pieces; then the
codes of all rows of the block are told to every process, and so are the rows that change their
cluster. Each process adds these to its sums, in row order, as a process alone does: the sums and
all that follows have the same bits, whatever the number of processes.

Sums and counts themselves would be the larger message. A block has at most 4 rows per codeword, so
that the sums are as many bytes as a quarter of the block; with thousands of codewords blocks are
smaller, and the sums as large as all rows of a block or larger. After the first pass, in which
every row changes its cluster, a few percent of the rows do. Sums of processes would also be added
up in an order that depends on their number.

Shapes: D dimensions, b rows of one block, p rows of one piece of it.
"""

from collections.abc import Sequence
from typing import NamedTuple

from sidmill.numeric import arrays, process_group, row_pieces
from sidmill.numeric.arrays import Array
from sidmill.numeric.process_group import Group
from sidmill.numeric.row_pieces import Piece


class SharedBlock(NamedTuple):
    """How a block is shared.

    Attributes:
        group: the processes; each takes the pieces whose number, divided by the number of
            processes, leaves its own number.
        start: row number of the block's first row.
        stop: row number behind its last row.
        rows: float32 (b, D), where every process has all rows of the block; None where each has
            those of its own pieces.
    """

    group: Group
    start: int
    stop: int
    rows: Array | None = None


def is_shared(block: SharedBlock | None) -> bool:
    """Whether several processes share the block."""
    return block is not None and block.group.size > 1


def piece_spans(block: SharedBlock) -> list[slice]:
    """Rows of all pieces of the block."""
    return row_pieces.piece_spans(block.start, block.stop)


def own_spans(block: SharedBlock) -> list[slice]:
    """Rows of the pieces that this process takes."""
    return [span for span in piece_spans(block) if _owner(block, span) == block.group.rank]


def own_of(block: SharedBlock, parts: Sequence[Array]) -> list[Array]:
    """Those of ``parts``, one per piece of the block, that belong to this process's pieces."""
    spans = piece_spans(block)
    return [
        part
        for part, span in zip(parts, spans, strict=True)
        if _owner(block, span) == block.group.rank
    ]


def device_of(block: SharedBlock, span: slice, n_devices: int) -> int:
    """Which of its devices this process gives a piece to: in turn."""
    number: int = span.start // row_pieces.PIECE_ROWS
    return number // block.group.size % n_devices


def cut_own(block: SharedBlock, rows: Array, n_devices: int) -> list[Piece]:
    """Cut the rows of this process's pieces, one piece after the other in ``rows``, into pieces."""
    pieces, first = [], 0
    for span in own_spans(block):
        n_rows = span.stop - span.start
        device_index = device_of(block, span, n_devices)
        pieces.append(Piece(device_index, rows[first : first + n_rows]))
        first += n_rows
    return pieces


def gather(
    block: SharedBlock, own: Sequence[Array], lengths: Sequence[int], like: Array
) -> list[Array]:
    """Tell every process what each found for its pieces.

    Args:
        block: how the block is shared.
        own: what this process found for each of its pieces, (l, ...) each.
        lengths: l of each piece of the block.
        like: a tensor of the same type, inner shape and device, for a process without pieces.

    Returns:
        What was found for each piece of the block, in row order.

    Raises:
        PeerEndedError: if another process is gone.
    """
    spans = piece_spans(block)
    owners = [_owner(block, span) for span in spans]
    totals = [0] * block.group.size
    for owner, length in zip(owners, lengths, strict=True):
        totals[owner] += length

    # One message per process; it holds that process's pieces one after the other.
    message = like[:0] if not own else arrays.of(like).concatenate(list(own))
    parts = process_group.gather(block.group, message, totals)
    found, firsts = [], [0] * block.group.size
    for owner, length in zip(owners, lengths, strict=True):
        found.append(parts[owner][firsts[owner] : firsts[owner] + length])
        firsts[owner] += length
    return found


def gather_labels(block: SharedBlock, own: Sequence[Array], like: Array) -> Array:
    """Tell every process the codes, int64 (p,), that each found for its pieces: int64 (b,)."""
    lengths = [span.stop - span.start for span in piece_spans(block)]
    small = [arrays.cast(labels, "int32") for labels in own]  # half the message
    nothing = arrays.empty([0], arrays.device_of(like), "int32")
    found = gather(block, small, lengths, nothing)
    return arrays.cast(arrays.of(like).concatenate(found), "int64")


def gather_rows(
    block: SharedBlock, own: Sequence[Array], chosen: Array | None, like: Array
) -> list[Array]:
    """Give every process some rows of a block.

    Args:
        block: how the block is shared.
        own: float32 (p, D), the rows of each piece of this process.
        chosen: bool (b,), which rows of the block; None for all.
        like: float32 (k, D), any k, where the rows go.

    Returns:
        The chosen rows of each piece of the block, in row order.

    Raises:
        PeerEndedError: if another process is gone.
    """
    lengths = [span.stop - span.start for span in piece_spans(block)]
    device = arrays.device_of(like)
    if chosen is None:
        if block.rows is not None:
            return arrays.split(block.rows, lengths)
        return gather(block, [arrays.send(rows, device) for rows in own], lengths, like)

    # The rows of some pieces, from memory or from the process that has them.
    of_pieces = arrays.split(chosen, lengths)
    if block.rows is not None:
        pieces = arrays.split(block.rows, lengths)
        return [rows[each] for rows, each in zip(pieces, of_pieces, strict=True)]
    selected = [
        arrays.send(rows[arrays.send(each, arrays.device_of(rows))], device)
        for rows, each in zip(own, own_of(block, of_pieces), strict=True)
    ]
    n_chosen = arrays.of(chosen).stack([each.sum() for each in of_pieces]).tolist()
    return gather(block, selected, n_chosen, like)


def _owner(block: SharedBlock, span: slice) -> int:
    number: int = span.start // row_pieces.PIECE_ROWS
    return number % block.group.size
