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
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize
from sklearn.utils import murmurhash3_32

from uniscale.artifacts import read_json, write_json
from uniscale.errors import DataError

BUCKETS = 1 << 15
NGRAMS = (2, 4)


class TextEncoder:
    """Maps texts to unit vectors; make one by `fit` or `load`."""

    def __init__(self, idf: np.ndarray, components: np.ndarray, seed: int):
        self.idf, self.components, self.seed = idf, components, seed  # (B,), (B, d)
        self._weighted = idf[:, None] * components  # (tf * idf) V = tf (idf * V), worked out once
        self._ngrams = CountVectorizer(analyzer="char_wb", ngram_range=NGRAMS).build_analyzer()

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
        components = np.zeros((BUCKETS, dim), np.float32)
        counts = cls(np.ones(BUCKETS, np.float32), components, seed)._counts(corpus)
        counts.sum_duplicates()
        frequency = np.bincount(counts.indices, minlength=BUCKETS)
        idf = (np.log((1 + len(corpus)) / (1 + frequency)) + 1).astype(np.float32)
        counts.data *= idf[counts.indices]
        weighted = normalize(counts)
        rank = min(dim, len(corpus) - 1)
        if rank < 1:  # one text spans one direction: itself
            components[:, 0] = weighted.toarray()[0]
            return cls(idf, components, seed)
        svd = TruncatedSVD(n_components=rank, random_state=seed).fit(weighted)
        spanned = svd.singular_values_ > 1e-6 * svd.singular_values_[0]
        components[:, :rank] = (svd.components_ * spanned[:, None]).T
        return cls(idf, components, seed)

    def encode(self, texts: Sequence[str | None]) -> np.ndarray:
        """Unit vectors of texts, shape (n, d), float32; a text that is missing, empty or foreign maps to zero."""
        vectors = self._counts([text or "" for text in texts]) @ self._weighted  # (n, d)
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

    def _counts(self, texts: Sequence[str]) -> csr_matrix:
        """Of n-grams by bucket, (n, B), an n-gram that a text repeats as often; scikit-learn's HashingVectorizer makes
        the same counts, but for one text, as a service asks, most of its time goes into checks."""
        grams = [self._ngrams(text) for text in texts]
        hashes = np.fromiter((murmurhash3_32(gram) for each in grams for gram in each), np.int64)
        ends = np.cumsum([0, *map(len, grams)])
        return csr_matrix((np.ones(len(hashes), np.float32), np.abs(hashes) % BUCKETS, ends), (len(texts), BUCKETS))
