# SPDX-License-Identifier: MIT
"""Reads and writes model files, and cuts their element and head axes. The format is in docs/model_file.md."""
import hashlib
import json
import re
from pathlib import Path

import numpy as np

FORMAT_VERSION = "1"


class UnsupportedModel(ValueError):
    """The model uses an option that a model file cannot express. The message names the option and its value."""


def file_sha256(path):
    """Hex SHA-256 of a file."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_model(path, tensors, document):
    """Writes a model file.

    `tensors` maps names to float64 or float32 arrays, `document` is the JSON document of docs/model_file.md without `sha256`, which is added here.
    Returns the document as written. Raises ValueError for an array of another type or with values that are not finite.
    """
    from safetensors.numpy import save

    for name, value in tensors.items():
        if value.dtype not in (np.float64, np.float32):
            raise ValueError(f"tensor {name} has type {value.dtype}: expected float64 or float32")
        if not np.isfinite(value).all():
            raise ValueError(f"tensor {name} has values that are not finite: the source model is damaged or its training diverged")
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    plain = save(tensors)  # the tensors' bytes do not depend on the metadata, so they can be hashed before the header is final
    data = plain[8 + int.from_bytes(plain[:8], "little"):]
    document = dict(document, sha256=hashlib.sha256(data).hexdigest())
    metadata = {"format": "adatom", "format_version": FORMAT_VERSION, "adatom": json.dumps(document)}
    final = save(tensors, metadata)
    if final[8 + int.from_bytes(final[:8], "little"):] != data:
        raise RuntimeError("safetensors laid the tensors out differently with metadata: the hash in the file would be wrong")
    Path(path).write_bytes(final)
    return document


def read_model(path):
    """Reads a model file: (tensors, document). Raises ValueError if it is not one, or if its tensors do not have the hash that it states."""
    from safetensors.numpy import load

    raw = Path(path).read_bytes()
    length = int.from_bytes(raw[:8], "little")
    try:
        metadata = json.loads(raw[8:8 + length])["__metadata__"]
        document = json.loads(metadata["adatom"])
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is not a model file of this package: its header has no metadata `adatom`") from error
    if metadata.get("format") != "adatom" or metadata.get("format_version") != FORMAT_VERSION:
        raise ValueError(f"{path} has format {metadata.get('format')!r} version {metadata.get('format_version')!r}: expected 'adatom' version "
                         f"{FORMAT_VERSION!r}")
    digest = hashlib.sha256(raw[8 + length:]).hexdigest()
    if digest != document["sha256"]:
        raise ValueError(f"{path} is damaged: its tensors hash to {digest}, its header says {document['sha256']}")
    return load(raw), document


# Position of the axes Z and H, by name of tensor; a negative number counts from the end.
_ELEMENT_AXIS = [(r"embedding", -2), (r"covalent_radii", 0), (r"atomic_energies|scale|shift", 1), (r"layers\.\d+\.(skip|contraction)\..*", 0)]
_HEAD_AXIS = [(r"atomic_energies|scale|shift", 0), (r"layers\.\d+\.(up|linear)\.bias", 0), (r"layers\.\d+\.readout\..*", 0)]


def restrict(tensors, document, elements=None, head=None):
    """The same model for fewer elements (atomic numbers, in the order wanted) and for one head (its name). None keeps all.

    Raises ValueError naming an element or a head that the model does not have.
    """
    tensors, document = dict(tensors), dict(document)
    if elements is not None:
        known = document["elements"]
        missing = [z for z in elements if z not in known]
        if missing:
            raise ValueError(f"the model has no element with atomic number {missing[0]}: it has {known}")
        if len(set(elements)) != len(elements) or not elements:
            raise ValueError(f"elements = {list(elements)}: expected at least one atomic number, each once")
        keep = [known.index(z) for z in elements]
        _take(tensors, _ELEMENT_AXIS, keep, len(known))
        document["elements"] = [int(z) for z in elements]
    if head is not None:
        if head not in document["heads"]:
            raise ValueError(f"the model has no head {head!r}: it has {document['heads']}")
        keep = [document["heads"].index(head)]
        if tensors["embedding"].ndim == 3:
            tensors["embedding"] = tensors["embedding"][keep[0]]
        _take(tensors, _HEAD_AXIS, keep, len(document["heads"]))
        document["heads"] = [head]
    return tensors, document


def _take(tensors, table, keep, size):
    for name, value in tensors.items():
        for pattern, axis in table:
            if re.fullmatch(pattern, name) and value.shape[axis] == size:  # an axis of length 1 is shared by all: nothing to cut
                tensors[name] = np.take(value, keep, axis=axis)
