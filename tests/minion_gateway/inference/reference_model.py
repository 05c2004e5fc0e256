"""all-MiniLM-L6-v2 once more, in plain numpy and 32 bits, as the yardstick for the graph that we write."""

from math import erf

import numpy as np
from minion_gateway.inference.embedders.graph import model_directory
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

Floats = NDArray[np.float32]


class ReferenceModel:
    """BERT's encoder, layer by layer, as the paper has it."""

    def __init__(self) -> None:
        self._weights = load_file(model_directory() / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(model_directory() / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(256)

    def embed(self, text: str) -> Floats:
        """Returns the text's vector."""
        ids = self._tokenizer.encode(text).ids
        weights = self._weights
        hidden = (
            weights["embeddings.word_embeddings.weight"][ids]
            + weights["embeddings.position_embeddings.weight"][: len(ids)]
            + weights["embeddings.token_type_embeddings.weight"][0]
        )
        hidden = self._norm(hidden, "embeddings.LayerNorm")
        for layer in range(6):
            prefix = f"encoder.layer.{layer}"
            heads = []
            query, key, value = (
                self._dense(hidden, f"{prefix}.attention.self.{part}") for part in ("query", "key", "value")
            )
            for head in range(12):
                columns = slice(32 * head, 32 * head + 32)
                scores = query[:, columns] @ key[:, columns].T / np.sqrt(32)
                shares = np.exp(scores - scores.max(axis=1, keepdims=True))
                heads.append(shares / shares.sum(axis=1, keepdims=True) @ value[:, columns])
            attended = self._dense(np.concatenate(heads, axis=1), f"{prefix}.attention.output.dense")
            hidden = self._norm(hidden + attended, f"{prefix}.attention.output.LayerNorm")
            inner = self._dense(hidden, f"{prefix}.intermediate.dense")
            inner = inner * 0.5 * (1 + np.vectorize(erf)(inner / np.sqrt(2)))
            hidden = self._norm(hidden + self._dense(inner, f"{prefix}.output.dense"), f"{prefix}.output.LayerNorm")
        mean = hidden.mean(axis=0)
        return np.asarray(mean / np.linalg.norm(mean), np.float32)

    def _dense(self, hidden: Floats, name: str) -> Floats:
        return np.asarray(hidden @ self._weights[f"{name}.weight"].T + self._weights[f"{name}.bias"], np.float32)

    def _norm(self, hidden: Floats, name: str) -> Floats:
        spread = np.sqrt(hidden.var(axis=1, keepdims=True) + 1e-12)
        normal = (hidden - hidden.mean(axis=1, keepdims=True)) / spread
        return np.asarray(normal * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"], np.float32)
