"""A causal Transformer over items made of their SIDs; it learns from all positions at once.

An item is a sum over the nodes of the trie on the way to its SID: a node has a projection of its
*codeword* (whitened), a vector of its token, and a vector of its prefix. The Transformer reads
these sums, and the score of an item is the cosine of the prediction with the item's own sum over a
temperature. Token and prefix vectors start near 0: where interactions say nothing, an item is what
its codewords say, so an item without interactions has a vector too.

The *similarity* of an item is added to its score: the product of its codewords' sum (whitened by
the fourth root, at unit length) with those of the latest items, weighted by age. The codewords are
those of its SID, or of an identifier that is compared and not generated.

Two learned numbers are added for the items that the history has (:mod:`.repeats`).

The first two terms are inner products: one product of a user vector with an item vector of H + S
dimensions. A constant, ``new_item_boost``, is added to the scores of items that no training history
has, which the others would keep from the lists.

Shapes: n items, N items in all, L levels, K_l tokens of a level, V_l nodes of depth l, d of the
codebooks, D of the text, H of the model, S of the similarity, B users, T positions, W prefixes.

Sources: item vectors from codebooks and tokens as in VQ-Rec, https://arxiv.org/abs/2210.12316;
SASRec, https://arxiv.org/abs/1808.09781; whitening, https://arxiv.org/abs/2402.10602; prefix
n-grams of SIDs, https://arxiv.org/abs/2306.08121.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sidmill.formats.trie_file import Trie
from sidmill.numeric import moments, sid_trie
from sidmill.numeric.row_blocks import read_blocks
from sidmill.recommend import sequence_model, softmax_loss
from sidmill.recommend.dropout import Dropout
from sidmill.recommend.generative import repeats
from sidmill.recommend.generative.decode import TokenScores
from sidmill.recommend.generative.model import Constants, GenerativeModel, View
from sidmill.recommend.generative.sid_items import Identifier, SidItems
from sidmill.recommend.item_features import scaled_axes
from sidmill.recommend.rank import products
from sidmill.recommend.windows import NO_TARGET
from sidmill.settings.generative import Generative

SCALE = 0.02  # standard deviation of a prefix vector, or of a token vector without codeword
WHITENING_POWER, SIMILARITY_POWER = 0.5, 0.25  # variances to the power of minus this
SIMILARITY_DIM = 512  # principal axes of the similarity, at most
FIRST_WEIGHT = 3.0  # of the similarity, before training
ITEM_BLOCK = 8192


class Shape(NamedTuple):
    """What determines the tensors of a model.

    Attributes:
        n_items: N.
        hidden_dim, n_layers, n_heads: of the Transformer.
        sizes: per identifier, K_l of each level.
        n_nodes: per identifier, V_l of depths 2 to L.
        codeword_dims: per identifier, d of each level that has a codebook.
        text_dim: D; 0 where text is not read.
        similarity_dim: S; 0 without similarity.
    """

    n_items: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    sizes: list[list[int]]
    n_nodes: list[list[int]]
    codeword_dims: list[list[int]]
    text_dim: int
    similarity_dim: int


def constants_of(items: SidItems, settings: Generative) -> Constants:
    """Compute the constants. Memory: those, one block of rows, and 4 N d bytes for the similarity.

    Raises:
        SidmillError: if an embedding is not finite.
    """
    reads_text = settings.features == "sid+text"
    tries = [sid_trie.build(one.codes, one.sizes) for one in items.identifiers]
    codes = [torch.from_numpy(one.codes.astype(np.int64)) for one in items.identifiers]
    nodes = [_nodes(trie, one) for trie, one in zip(tries, codes, strict=True)]
    codewords = [
        [
            torch.from_numpy(_whiten_codebook(book, one.codes[:, level]))
            for level, book in enumerate(one.codebooks)
        ]
        for one in items.identifiers
    ]
    text = None
    if reads_text:
        text = torch.from_numpy(_whiten_rows(items.items.vectors, WHITENING_POWER, None))

    # Rows that are compared: the text, or what the codebooks say of it.
    similarity = np.zeros((len(codes[0]), 0), np.float32)
    compared = items.compared or items.identifiers[0]
    reads_codewords = settings.similarity and not reads_text and compared.codebooks
    if settings.similarity and reads_text:
        similarity = _similarity(items.items.vectors)
    elif reads_codewords:
        similarity = _similarity(_reconstruct(compared))
    constants = Constants(tries, codes, nodes, codewords, text, torch.from_numpy(similarity), [])
    return constants._replace(folds=_folds(items, constants, compared if reads_codewords else None))


def _folds(items: SidItems, constants: Constants, compared: Identifier | None) -> list[View]:
    """What training reads for the users of each fold. Memory: the result.

    Args:
        items: some identifiers have codes for each fold.
        constants: what is read without folds.
        compared: the identifier that gives the similarity; None: no identifier does.
    """
    # (F, N, L) per identifier; None for one that is the same in every fold.
    folded = [one.fold_codes for one in items.identifiers]
    nodes = [
        None if codes is None else _fold_nodes(trie, torch.from_numpy(codes.astype(np.int64)), own)
        for trie, codes, own in zip(constants.tries, folded, constants.nodes, strict=True)
    ]

    # What differs in a fold, beside what all folds share.
    views = []
    for fold in range(items.n_folds if items.n_folds > 1 else 0):
        similarity = constants.similarity
        if compared is not None and compared.fold_codes is not None:
            rows = _reconstruct(compared._replace(codes=compared.fold_codes[fold]))
            similarity = torch.from_numpy(_similarity(_reconstruct(compared), rows))
        views.append(
            View(
                [
                    own if codes is None else torch.from_numpy(codes[fold].astype(np.int64))
                    for own, codes in zip(constants.codes, folded, strict=True)
                ],
                [
                    own if of_folds is None else of_folds[fold]
                    for own, of_folds in zip(constants.nodes, nodes, strict=True)
                ],
                similarity,
            )
        )
    return views


def _fold_nodes(trie: Trie, codes: Tensor, nodes: Tensor) -> Tensor:
    """Number of the node of each item in each fold: int64 (F, N, L) to (F, N, L - 1).

    A prefix that no SID has gets a number after those of the trie. At the last depth an item has
    the node of its SID in every fold: what training learns of the item itself is used afterwards.
    """
    n_folds, n_items, n_levels = codes.shape
    rows = codes.flatten(0, 1)
    found = _nodes(trie, rows)  # (F N, L - 1), -1 where no SID has the prefix
    for depth in range(n_levels - 2):
        is_new = found[:, depth] < 0
        prefixes = rows[is_new, : depth + 2]
        numbers = torch.unique(prefixes, dim=0, return_inverse=True)[1]
        found[is_new, depth] = len(trie.tokens[depth + 1]) + numbers
    if n_levels > 1:
        found[:, -1] = nodes[:, -1].repeat(n_folds)
    return found.view(n_folds, n_items, -1)


def _nodes(trie: Trie, codes: Tensor) -> Tensor:
    """Number of the node of each item at depths 2 to L: int64 (N, L - 1)."""
    node = torch.zeros(len(codes), dtype=torch.int64)
    path = []
    for level in range(codes.shape[1]):
        node = sid_trie.step(trie, level, node, codes[:, level])
        path.append(node)
    return torch.stack(path[1:], dim=1) if len(path) > 1 else codes[:, :0]


def _whiten_codebook(book: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Whiten codewords (K, d) by the moments that they have over the items: float32 (K, d)."""
    counts = np.bincount(codes, minlength=len(book)) / len(codes)
    codewords = book.astype(np.float64)
    mean = counts @ codewords
    centred = codewords - mean
    matrix = scaled_axes((centred * counts[:, None]).T @ centred, WHITENING_POWER)
    whitened: np.ndarray = (centred @ matrix).astype(np.float32)
    return whitened


def _whiten_rows(
    rows: np.ndarray, power: float, n_axes: int | None, others: np.ndarray | None = None
) -> np.ndarray:
    """Whiten rows (N, D): float32 (N, D), or (N, n_axes). Memory: the result and D x D doubles.

    With ``others`` (N, D), these are whitened, by the moments of ``rows``.

    Raises:
        SidmillError: if a row is not finite.
    """
    # Moments in one pass over blocks, then a second pass that projects.
    measured = moments.measure(rows)
    mean = measured.mean().astype(np.float32)
    matrix = scaled_axes(measured.covariance(), power, n_axes).astype(np.float32)
    rows = rows if others is None else others
    whitened = np.empty((len(rows), matrix.shape[1]), np.float32)
    for start, block in read_blocks(rows, ITEM_BLOCK):
        whitened[start : start + len(block)] = (block - mean) @ matrix
    return whitened


def _similarity(rows: np.ndarray, others: np.ndarray | None = None) -> np.ndarray:
    """Rows that are compared by their products: float32 (N, S), at unit length.

    Args:
        rows: float (N, D).
        others: float (N, D), rows to whiten by the moments of ``rows``; None: these.
    """
    n_axes = min(rows.shape[1], SIMILARITY_DIM)
    found = _whiten_rows(rows, SIMILARITY_POWER, n_axes, others)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    return np.asarray(found / np.maximum(lengths, np.finfo(np.float32).tiny))


def _reconstruct(identifier: Identifier) -> np.ndarray:
    """Sum of the codewords of each item: float32 (N, d). Memory: the result."""
    rows = np.zeros((len(identifier.codes), identifier.codebooks[0].shape[1]), np.float32)
    for level, book in enumerate(identifier.codebooks):
        rows += book[identifier.codes[:, level]]
    return rows


class SidVectors(nn.Module):
    """Vectors of items by one identifier: a sum over the nodes of the trie."""

    def __init__(
        self, hidden_dim: int, sizes: list[int], n_nodes: list[int], dims: list[int]
    ) -> None:
        """Draw the first weights from torch's generator."""
        super().__init__()
        self.projections = nn.ModuleList(nn.Linear(dim, hidden_dim) for dim in dims)

        # A token with a codeword starts as that codeword alone.
        scales = [0.0 if level < len(dims) else SCALE for level in range(len(sizes))]
        self.tokens = nn.ParameterList(
            torch.randn(size, hidden_dim) * scale for size, scale in zip(sizes, scales, strict=True)
        )
        self.prefixes = nn.ParameterList(
            torch.randn(count, hidden_dim) * SCALE for count in n_nodes
        )

    def tables(self, codewords: list[Tensor], drop: nn.Module) -> list[Tensor]:
        """Vector of every token: float (K_l, H) per level."""
        tables = []
        for level, table in enumerate(self.tokens):
            if level < len(self.projections):
                table = table + self.projections[level](drop(codewords[level]))
            tables.append(table)
        return tables

    def forward(self, tables: list[Tensor], codes: Tensor, nodes: Tensor) -> Tensor:
        """Sum the vectors of n items.

        Args:
            tables: of :meth:`tables`.
            codes: int64 (n, L).
            nodes: int64 (n, L - 1).

        Returns:
            float (n, H).
        """
        terms = [functional.embedding(codes[:, level], one) for level, one in enumerate(tables)]
        terms += [
            functional.embedding(nodes[:, depth], one) for depth, one in enumerate(self.prefixes)
        ]
        return torch.stack(terms).sum(dim=0)


class Causal(GenerativeModel):
    """The whole model. The prediction at a position depends on no later position."""

    similarity_weight: nn.Parameter
    is_new: Tensor  # bool (N,), items that no training history has

    def __init__(self, shape: Shape, settings: Generative) -> None:
        """Draw the first weights from torch's generator."""
        super().__init__()
        self.shape, self.settings = shape, settings
        self.register_buffer("is_new", torch.zeros(shape.n_items, dtype=torch.bool))
        width = shape.hidden_dim

        # Items: one sum of nodes per identifier, and their text.
        self.sids = nn.ModuleList(
            SidVectors(width, *levels)
            for levels in zip(shape.sizes, shape.n_nodes, shape.codeword_dims, strict=True)
        )
        self.item_drop = Dropout(settings.item_dropout)
        if shape.text_dim:
            self.text: nn.Module = nn.Sequential(
                Dropout(settings.item_dropout),
                nn.Linear(shape.text_dim, 2 * width),
                nn.GELU(),
                Dropout(settings.item_dropout),
                nn.Linear(2 * width, width),
            )
        self.item_norm = nn.LayerNorm(width)

        # Users: causal Transformer blocks over the items of a history.
        self.drop = Dropout(settings.dropout)
        self.blocks = nn.ModuleList(
            sequence_model.Block(width, shape.n_heads, settings.dropout)
            for _ in range(shape.n_layers)
        )
        self.user_norm = nn.LayerNorm(width)
        if shape.similarity_dim:
            # softplus of it is the weight
            first = float(np.log(np.expm1(FIRST_WEIGHT)))
            self.similarity_weight = nn.Parameter(torch.tensor(first))
        self.repeats = repeats.Repeats()

    def attach(self, constants: Constants, device: torch.device) -> None:
        """Give the model the constants of its items, on its device."""
        self.tries = [trie.to(device) for trie in constants.tries]
        self.codes = [one.to(device) for one in constants.codes]
        self.nodes = [one.to(device) for one in constants.nodes]
        self.codewords = [[one.to(device) for one in level] for level in constants.codewords]
        self.text_rows = None if constants.text is None else constants.text.to(device)
        self.similarity = constants.similarity.to(device)
        self.whole = View(self.codes, self.nodes, self.similarity)

        # What a fold shares with the others is on the device once.
        moved = dict(
            zip(map(id, constants.codes + constants.nodes), self.codes + self.nodes, strict=True)
        )
        self.folds = [
            View(
                [moved.get(id(one), one).to(device) for one in fold.codes],
                [moved.get(id(one), one).to(device) for one in fold.nodes],
                fold.similarity.to(device),
            )
            for fold in constants.folds
        ]

    def read_fold(self, fold: int | None) -> None:
        """Read items as training does for a fold of users; None, or no folds: by their SIDs."""
        view = self.whole if fold is None or not self.folds else self.folds[fold]
        self.codes, self.nodes, self.similarity = view

    def drop_folds(self) -> None:
        """Drop the views of the folds, and the vectors of prefixes that no SID has."""
        self.read_fold(None)
        self.folds = []
        n_nodes = [[len(tokens) for tokens in trie.tokens[1:]] for trie in self.tries]
        self.shape = self.shape._replace(n_nodes=n_nodes)
        for vectors, counts in zip(self.sids, n_nodes, strict=True):
            assert isinstance(vectors, SidVectors)
            for table, count in zip(vectors.prefixes, counts, strict=True):
                table.data = table.data[:count].clone()

    def note_training(self, is_seen: np.ndarray) -> None:
        """Set the vectors of prefixes to 0 that no item of a history has; keep what is new.

        Such a prefix gets no gradient: what it was drawn as would be noise in the vectors of new
        items.
        """
        views = self.folds or [self.whole]
        for number, vectors in enumerate(self.sids):
            assert isinstance(vectors, SidVectors)
            for depth, table in enumerate(vectors.prefixes):
                is_unseen = torch.ones(len(table), dtype=torch.bool)
                for view in views:
                    is_unseen[view.nodes[number][torch.from_numpy(is_seen), depth]] = False
                table.data[is_unseen] = 0.0

        # A SID is new where all of its items are: items that share one have one score.
        sids = self.tries[0].sid_of_item
        seen = torch.zeros(self.tries[0].n_sids, dtype=torch.bool)
        seen[sids[torch.from_numpy(is_seen)]] = True
        self.is_new.copy_(~seen[sids])

    def items(self, numbers: Tensor) -> Tensor:
        """Make the vectors of items.

        Args:
            numbers: int64 (n,), in [0, N).

        Returns:
            float (n, H), layer-normed; not yet of unit length.
        """
        states = torch.zeros((), device=numbers.device)
        parts = zip(self.sids, self.codes, self.nodes, self.codewords, strict=True)
        for vectors, codes, nodes, codewords in parts:
            assert isinstance(vectors, SidVectors)
            tables = vectors.tables(codewords, self.item_drop)
            states = states + vectors(tables, codes[numbers], nodes[numbers])
        if self.text_rows is not None:
            text: Tensor = self.text(self.text_rows[numbers])
            states = states + text
        normed: Tensor = self.item_norm(states)
        return normed

    def users(self, items: Tensor) -> Tensor:
        """Predict after each position: item vectors float (B, T, H) to (B, T, H), unit length."""
        states: Tensor = self.drop(items)
        for block in self.blocks:
            states = block(states, None, None)
        return sequence_model.unit(self.user_norm(states))

    def latest(self, histories: Tensor) -> Tensor:
        """Similarity vectors of the items so far, weighted by age: float (B, T, S)."""
        positions = torch.arange(histories.shape[1], device=histories.device)
        ages = (positions[:, None] - positions[None]).clamp(min=0)
        weights = (self.settings.similarity_decay ** ages.float()).tril()
        return weights @ self.similarity[histories]

    def loss(self, inputs: Tensor, targets: Tensor, candidates: Tensor) -> tuple[Tensor, int]:
        """Cross-entropy over the items that targets are compared with.

        Args:
            inputs: int64 (B, T), items of the windows.
            targets: int64 (B, T), the next item of each, or NO_TARGET.
            candidates: int64 (n,), ascending; they hold all targets.

        Returns:
            The mean over targets, and their number.
        """
        has_target = targets != NO_TARGET
        histories = torch.where(has_target, inputs, inputs[0, 0])

        # Each item of the batch once: those that are read, and those that scores compare.
        numbers = torch.unique(torch.cat([histories.flatten(), candidates]))
        vectors = self.items(numbers)
        read = functional.embedding(torch.searchsorted(numbers, histories), vectors)
        rows = torch.searchsorted(numbers, candidates)
        compared = sequence_model.unit(functional.embedding(rows, vectors))

        # Cosines over the temperature, the similarity, and what the history has already.
        users = self.users(read)[has_target] / self.settings.temperature  # (targets, H)
        similarity = None
        if self.shape.similarity_dim:
            similarity = softmax_loss.Similarity(
                functional.softplus(self.similarity_weight),
                self.latest(histories)[has_target],
                self.similarity[candidates],
            )
        sids = self.tries[0].sid_of_item
        entries = repeats.of_windows(sids[histories], has_target)
        cells = self.repeats.cells(len(candidates), repeats.columns(sids[candidates]), entries)
        loss = softmax_loss.cross_entropy(
            users,
            compared,
            torch.searchsorted(candidates, targets[has_target]),
            self.settings.label_smoothing,
            similarity=similarity,
            cells=cells,
        )
        return loss, len(users)

    def scores(self) -> "CausalScores":
        """Scores of all items, with the present weights."""
        return CausalScores(self)


class CausalScores:
    """Scores of a trained model. Holds the vectors of all items: 4 N (2 H + S) bytes."""

    is_exact = True

    def __init__(self, model: Causal) -> None:
        """Compute the vectors of all items, in blocks."""
        self.model = model
        with torch.no_grad():
            n_items = len(model.codes[0])
            numbers = torch.arange(n_items, device=model.codes[0].device)
            self.read = torch.cat([model.items(part) for part in torch.split(numbers, ITEM_BLOCK)])
            units = sequence_model.unit(self.read) / model.settings.temperature
            self.compared = torch.cat([units, self._weighted(model.similarity)], dim=1)
            self.boost = model.settings.new_item_boost * model.is_new
            self.columns = repeats.columns(model.tries[0].sid_of_item)

    def _weighted(self, similarity: Tensor) -> Tensor:
        if not self.model.shape.similarity_dim:
            return similarity
        return functional.softplus(self.model.similarity_weight) * similarity

    @torch.no_grad()
    def encode(self, histories: Tensor, lengths: Tensor) -> Tensor:
        """Vectors of users after their last item, and their histories.

        Args:
            histories: int64 (B, T), T at most ``max_length``.
            lengths: int64 (B,).

        Returns:
            float32 (B, H + S + max_length). The last columns have the bits of int32: the number of
            an item and 1, and 0 after the end of a history.
        """
        rows = torch.arange(len(histories), device=histories.device)
        users = self.model.users(self.read[histories])[rows, lengths - 1]
        latest = self.model.latest(histories)[rows, lengths - 1]

        # Numbers of items as bits: float32 would round those above 2^24.
        columns = torch.arange(histories.shape[1], device=histories.device)
        numbers = (histories + 1).masked_fill(columns >= lengths[:, None], 0)
        missing = max(self.model.settings.max_length - numbers.shape[1], 0)
        bits = functional.pad(numbers, (0, missing)).int().view(torch.float32)
        return torch.cat([users, latest, bits], dim=1)

    @torch.no_grad()
    def item_scores(self, users: Tensor) -> Tensor:
        """Scores of all items: float32 (B, N). Items that share a SID have one score."""
        width = self.compared.shape[1]
        scores = products(users[:, :width], self.compared.T).add_(self.boost)
        numbers = users[:, width:].contiguous().view(torch.int32).long()
        self.add_history(scores, (numbers - 1).clamp(min=0), (numbers > 0).sum(dim=1))
        return scores

    @torch.no_grad()
    def add_history(self, scores: Tensor, histories: Tensor, lengths: Tensor) -> None:
        """Add to scores (B, N), in place, what the items of histories (B, T) get."""
        sids = self.model.tries[0].sid_of_item[histories]
        self.model.repeats.add(scores, self.columns, repeats.of_histories(sids, lengths))

    @torch.no_grad()
    def token_scores(self, users: Tensor) -> TokenScores:
        """Log-probability of a token after its prefix, for :mod:`decode`.

        The model is a softmax over SIDs. A prefix has the sum of the probabilities below it, so the
        product over the levels is the probability of a SID, and no other combination of tokens has
        any. Memory: 4 B (V_1 + ... + V_L) bytes and the scores of all items; of a call 4 B W K_l
        bytes, and about 60 per child of the prefixes.
        """
        trie = self.model.tries[0]

        # Log-probability of the SIDs, from one item of each: (B, S).
        scores = self.item_scores(users)[:, trie.items[trie.first_item[:-1]]]
        by_depth = [scores.log_softmax(dim=1)]
        for offsets in reversed(trie.first_child[1:]):
            by_depth.insert(0, _sum_of_children(by_depth[0], offsets))

        def score(level: int, prefixes: Tensor) -> Tensor:
            # The node of each prefix: (B, W).
            node = torch.zeros_like(prefixes[:, :, 0] if level else users[:, :1], dtype=torch.int64)
            for depth in range(level):
                node = sid_trie.step(trie, depth, node, prefixes[:, :, depth])
            node = node.expand(len(users), -1)

            # Children of all nodes in one row: (C,). No child follows an illegal prefix.
            offsets = trie.first_child[level]
            first = offsets[node.clamp(min=0)]
            counts = torch.where(node >= 0, offsets[node.clamp(min=0) + 1] - first, 0)
            prefix_of, number = sid_trie.spread(counts.flatten())
            child, user = first.flatten()[prefix_of] + number, prefix_of // node.shape[1]

            # Their share of the probability of their prefix; other tokens have none.
            values = by_depth[level][user, child]
            if level:
                values = values - by_depth[level - 1][user, node.flatten()[prefix_of]]
            found = values.new_full((node.numel(), trie.sizes[level]), -torch.inf)
            found[prefix_of, trie.tokens[level][child].long()] = values
            return found.view(*node.shape, -1)

        return score


def _sum_of_children(children: Tensor, offsets: Tensor) -> Tensor:
    """Log of the summed probabilities of the children of each node: (B, c) to (B, n)."""
    counts = offsets.diff()
    parents = torch.repeat_interleave(torch.arange(len(counts), device=counts.device), counts)
    highest = children.new_full((len(children), len(counts)), -torch.inf)
    index = parents.expand_as(children)
    highest.scatter_reduce_(1, index, children, "amax")
    shares = (children - highest.gather(1, index)).exp()
    if shares.is_cuda:  # scatter_add_ has no fixed order there
        return highest + torch.segment_reduce(shares.T, "sum", lengths=counts).T.log()
    return highest + torch.zeros_like(highest).scatter_add_(1, index, shares).log()


def build(constants: Constants, settings: Generative) -> Causal:
    """Make the model with the first weights, drawn from torch's generator."""
    return Causal(shape_of(settings, constants), settings)


def shape_of(settings: Generative, constants: Constants) -> Shape:
    """Shape of the model that ``settings`` ask for."""
    return Shape(
        n_items=len(constants.codes[0]),
        hidden_dim=settings.hidden_dim,
        n_layers=settings.n_layers,
        n_heads=settings.n_heads,
        sizes=[list(trie.sizes) for trie in constants.tries],
        n_nodes=[_n_nodes(trie, number, constants) for number, trie in enumerate(constants.tries)],
        codeword_dims=[[one.shape[1] for one in books] for books in constants.codewords],
        text_dim=0 if constants.text is None else constants.text.shape[1],
        similarity_dim=constants.similarity.shape[1],
    )


def _n_nodes(trie: Trie, number: int, constants: Constants) -> list[int]:
    """Nodes of depths 2 to L of an identifier, with those that only folds have."""
    counts = [len(tokens) for tokens in trie.tokens[1:]]
    for fold in constants.folds:
        highest = fold.nodes[number].amax(dim=0).tolist()
        counts = [max(count, top + 1) for count, top in zip(counts, highest, strict=True)]
    return counts
