"""A frozen text encoder that puts titles and queries in one space: hashed character n-grams, TF-IDF, truncated SVD.

Method: latent semantic analysis (Deerwester et al., 1990) on character n-grams, which need no tokeniser and bear
misspellings and any script. With tf (n, B) the n-gram counts, idf (B,) and V (B, d) the right singular vectors of the
row-normalised tf·idf matrix: encode(x) = normalise((tf(x) * idf) V). Fitted on past days only.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import normalize

from uniscale.artifacts import read_json, write_json
from uniscale.errors import DataError

BUCKETS = 1 << 15
NGRAMS = (2, 4)


class TextEncoder:
    """Maps texts to unit vectors; make one by `fit` or `load`."""

    def __init__(self, idf: np.ndarray, components: np.ndarray, seed: int):
        self.idf, self.components, self.seed = idf, components, seed  # (B,), (B, d)
        self._vectorizer = HashingVectorizer(
            analyzer="char_wb", ngram_range=NGRAMS, n_features=len(idf), alternate_sign=False, norm=None
        )

    @property
    def dim(self) -> int:
        """Width d of the space."""
        return self.components.shape[1]

    @classmethod
    def fit(cls, texts: Sequence[str], dim: int, seed: int) -> "TextEncoder":
        """Fit on distinct texts; directions that the texts do not span stay zero.

        Raises:
            DataError: no text has a character n-gram.
        """
        corpus = sorted({text for text in texts if text and text.strip()})
        if not corpus:
            raise DataError("no text to fit the encoder on: give titles or queries, or set has_text to false")
        encoder = cls(np.ones(BUCKETS, np.float32), np.zeros((BUCKETS, dim), np.float32), seed)
        counts = encoder._vectorizer.transform(corpus)  # (n, B)
        frequency = np.bincount(counts.indices, minlength=BUCKETS)
        encoder.idf = (np.log((1 + len(corpus)) / (1 + frequency)) + 1).astype(np.float32)
        weighted = normalize(encoder._weigh(counts))
        rank = min(dim, len(corpus) - 1)
        if rank < 1:  # one text spans one direction: itself
            encoder.components[:, 0] = weighted.toarray()[0]
            return encoder
        svd = TruncatedSVD(n_components=rank, random_state=seed).fit(weighted)
        spanned = svd.singular_values_ > 1e-6 * svd.singular_values_[0]
        encoder.components[:, :rank] = (svd.components_ * spanned[:, None]).T
        return encoder

    def encode(self, texts: Sequence[str | None]) -> np.ndarray:
        """Unit vectors of texts, shape (n, d), float32; a text that is missing, empty or foreign maps to zero."""
        if not len(texts):
            return np.zeros((0, self.dim), np.float32)
        counts = self._vectorizer.transform([text or "" for text in texts])
        vectors = np.asarray(self._weigh(counts) @ self.components)  # (n, d)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 1e-6).astype(np.float32)

    def save(self, folder: Path) -> None:
        """Write `encoder.json` and `encoder.safetensors` into a folder."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        save_file({"idf": self.idf, "components": self.components}, folder / "encoder.safetensors")
        write_json(folder / "encoder.json", {"dim": self.dim, "ngrams": NGRAMS, "buckets": BUCKETS, "seed": self.seed})

    @classmethod
    def load(cls, folder: Path) -> "TextEncoder":
        """Inverse of `save`.

        Raises:
            DataError: the folder holds no encoder, or one of another n-gram layout.
        """
        settings = read_json(Path(folder) / "encoder.json")
        if settings["ngrams"] != list(NGRAMS) or settings["buckets"] != BUCKETS:
            raise DataError(f"{folder} was written by another version ({settings}): build the features again")
        tensors = load_file(Path(folder) / "encoder.safetensors")
        return cls(tensors["idf"], tensors["components"], settings["seed"])

    def _weigh(self, counts: csr_matrix) -> csr_matrix:
        weights = (counts.data * self.idf[counts.indices]).astype(np.float32)
        return csr_matrix((weights, counts.indices, counts.indptr), shape=counts.shape)
