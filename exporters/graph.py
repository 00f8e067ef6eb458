"""A small builder of ONNX graphs whose weights lie in one shared external file.

A graph has a type of its own, float32, float16 or bfloat16: that of the operands and results of
its matrix products, of its embedding tables, and of the keys and values it hands on. All else is
float32: the residual stream, norms, softmaxes, rotations, activations, the asked logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
MICROSOFT = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
IR_VERSION = 9
WEIGHTS_FILE = "weights.bin"
MASKED = -1e9
"""Added to the scores of keys that must not be seen: exp() of it is exactly 0 in float32."""

_ALIGNMENT = 4096  # what the ONNX format asks for, so that weights can be memory-mapped
_SUFFIXES = {np.dtype(np.float16): "/fp16", np.dtype(ml_dtypes.bfloat16): "/bf16"}
_FLOAT_TYPES: dict[str, Any] = {"fp16": np.float16, "bf16": ml_dtypes.bfloat16}


def _kind(dtype: Any) -> int:
    """The ONNX type of a NumPy type; releases of onnx differ in whether they know bfloat16."""
    if dtype == ml_dtypes.bfloat16:
        return int(TensorProto.BFLOAT16)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


class Weights:
    """Arrays by name in one file, written as they come, shared by all graphs of a model.

    Parameters
    ----------
    folder : Path
        Where the file is made.
    """

    def __init__(self, folder: Path) -> None:
        self._file = open(folder / WEIGHTS_FILE, "wb")  # noqa: SIM115
        self._places: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Weights:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def place(self, name: str, array: np.ndarray) -> tuple[int, int]:
        """Offset and length in bytes of `name` in the file; the first call writes the array."""
        if name not in self._places:
            array = np.ascontiguousarray(array)
            start = -(-self._file.tell() // _ALIGNMENT) * _ALIGNMENT
            self._file.seek(start)
            self._file.write(array.view(np.uint8).data)
            self._places[name] = (start, array.nbytes)
        return self._places[name]


def external(
    name: str, kind: int, shape: Sequence[int], start: int, length: int
) -> onnx.TensorProto:
    """A constant of ONNX type `kind` whose bytes lie in the weights file."""
    tensor = TensorProto(name=name, data_type=kind, dims=shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", WEIGHTS_FILE), ("offset", start), ("length", length)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


class Graph:
    """One ONNX graph under construction; values are known by name.

    Parameters
    ----------
    name : str
        The graph's name and its file's stem.
    weights : Weights
        Where `weight` puts large arrays.
    precision : str
        "fp16" and "bf16" give the graph that type; all others leave it float32.
    """

    def __init__(self, name: str, weights: Weights, precision: str = "fp32") -> None:
        self.name = name
        self.dtype: Any = _FLOAT_TYPES.get(precision, np.float32)
        self._weights = weights
        self._casts: dict[tuple[str, int], str] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._known: list[onnx.ValueInfoProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._published: dict[str, str] = {}

    def input(self, name: str, dtype: type, shape: Sequence[int | str]) -> str:
        """Declare an input; a string in `shape` names a free dimension."""
        self._inputs.append(helper.make_tensor_value_info(name, _kind(dtype), shape))
        return name

    def output(self, name: str, value: str, dtype: type, shape: Sequence[int | str]) -> None:
        """Publish the node output `value` under `name`."""
        self._published[value] = name
        self._outputs.append(helper.make_tensor_value_info(name, _kind(dtype), shape))

    def const(self, value: Any, dtype: type = np.int64) -> str:
        """A small constant, kept inside the graph's own file."""
        array: np.ndarray = np.asarray(value, dtype=dtype)
        name = f"const/{array.dtype}/{array.shape}/{array.ravel().tolist()}"
        if name not in self._initializers:
            self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def weight(
        self,
        name: str,
        array: np.ndarray,
        dtype: Any = np.float32,
        rows: tuple[int, int] | None = None,
    ) -> str:
        """An array, or a run of its rows, in the shared weights file; stored once a name and type.

        Parameters
        ----------
        rows : (int, int), optional
            Half-open and cut to the array; they lie in the file where the whole array has them.
        """
        dtype = np.dtype(dtype)
        name += _SUFFIXES.get(dtype, "")
        if name not in self._weights:
            array = array.astype(dtype, copy=False)
        start, length = self._weights.place(name, array)
        shape = array.shape
        if rows is not None:
            first, last = rows[0], min(rows[1], shape[0])
            name, shape = f"{name}[{first}:{last}]", (last - first, *shape[1:])
            start += first * (length // array.shape[0])
            length = length // array.shape[0] * shape[0]
        if name not in self._initializers:
            self._initializers[name] = external(name, _kind(dtype), shape, start, length)
        return name

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return the output's name."""
        return self.ops(kind, *inputs, count=1, **attributes)[0]

    def ops(self, kind: str, *inputs: str, count: int, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs and return their names."""
        label = f"{kind}_{len(self._nodes)}"
        outputs = [f"{label}/{i}" for i in range(count)]
        self._nodes.append(helper.make_node(kind, list(inputs), outputs, name=label, **attributes))
        return outputs

    def own_op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one of ONNX Runtime's own operators, with one float32 output."""
        output = self.op(kind, *inputs, domain=MICROSOFT, **attributes)
        # onnx infers the types of what follows, but does not know these operators.
        self._known.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, None))
        return output

    def reshape(self, value: str, shape: Sequence[int | str]) -> str:
        """Reshape; an entry is a size, -1, 0 (keep), or the name of an int64[1] value."""
        if all(isinstance(size, int) for size in shape):
            return self.op("Reshape", value, self.const(list(shape)))
        parts = [size if isinstance(size, str) else self.const([size]) for size in shape]
        return self.op("Reshape", value, self.op("Concat", *parts, axis=0))

    def heads(self, value: str, shape: Sequence[int | str], perm: Sequence[int]) -> str:
        """Reshape, then transpose."""
        return self.op("Transpose", self.reshape(value, shape), perm=list(perm))

    def size(self, value: str, axis: int) -> str:
        """The length of one axis, int64[1]."""
        return self.op("Shape", value, start=axis, end=axis + 1)

    def span(self, size: str) -> str:
        """0, 1, ... up to `size` (int64[1]), exclusive."""
        stop = self.op("Squeeze", size, self.const([0]))
        return self.op("Range", self.const(0), stop, self.const(1))

    def narrow(self, value: str) -> str:
        """A float32 value in the graph's type."""
        return self._cast(value, self.dtype)

    def wide(self, value: str) -> str:
        """A value of the graph's type in float32."""
        return self._cast(value, np.float32)

    def _cast(self, value: str, dtype: Any) -> str:
        if self.dtype == np.float32:
            return value
        key = (value, _kind(dtype))
        if key not in self._casts:
            self._casts[key] = self.op("Cast", value, to=key[1])
        return self._casts[key]

    def linear(self, value: str, name: str, weight: np.ndarray, *, exact: bool = False) -> str:
        """Multiply by the transpose of a PyTorch weight, [out, in]; `exact` stays in float32."""
        if exact:
            return self.op("MatMul", value, self.weight(name, weight.T))
        operand = self.narrow(value)
        return self.wide(self.op("MatMul", operand, self.weight(name, weight.T, self.dtype)))

    def embed(self, tokens: str, name: str, table: np.ndarray) -> str:
        """Rows of an embedding table."""
        return self.wide(self.op("Gather", self.weight(name, table, self.dtype), tokens))

    def rms_norm(self, value: str, name: str, weight: np.ndarray, epsilon: float) -> str:
        """Divide by the root mean square of the last axis, times `weight`."""
        square = self.op("Pow", value, self.const(2.0, np.float32))
        mean = self.op("ReduceMean", square, self.const([-1]))
        root = self.op("Sqrt", self.op("Add", mean, self.const(epsilon, np.float32)))
        return self.op("Mul", self.op("Div", value, root), self.weight(name, weight))

    def save(self, folder: Path) -> None:
        """Write `<name>.onnx`."""
        # Renaming instead of an Identity node, which would copy values that are also read inside.
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [self._published.get(name, name) for name in names]
        graph = helper.make_graph(
            self._nodes,
            self.name,
            self._inputs,
            self._outputs,
            list(self._initializers.values()),
            value_info=self._known,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid(MICROSOFT, 1)],
            ir_version=IR_VERSION,
            producer_name="genret-dask",
        )
        (folder / f"{self.name}.onnx").write_bytes(model.SerializeToString())
