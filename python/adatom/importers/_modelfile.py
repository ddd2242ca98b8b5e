# SPDX-License-Identifier: MIT
"""Reads and writes model files, and cuts their element and head axes. The format is in docs/model_file.md."""
import hashlib
import json
import re
from pathlib import Path

import numpy as np

FORMAT_VERSION = "3"  # the one that is written


class UnsupportedModel(ValueError):
    """The model uses an option that a model file cannot express. The message names the option and its value."""


def file_sha256(path):
    """Hex SHA-256 of a file."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def write_model(path, tensors, document):
    """Writes a model file.

    `tensors` maps names to float64 or float32 arrays, `document` is the JSON document of docs/model_file.md.
    Returns the document with the file's `sha256`. Raises ValueError for an array of another type or with values that are not finite.
    """
    from safetensors.numpy import save

    for name, value in tensors.items():
        if value.dtype not in (np.float64, np.float32):
            raise ValueError(f"tensor {name} has type {value.dtype}: expected float64 or float32")
        if not np.isfinite(value).all():
            raise ValueError(f"tensor {name} has values that are not finite: the source model is damaged or its training diverged")
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    text = json.dumps({key: value for key, value in document.items() if key != "sha256"})
    header, data = _split(save(tensors))  # the tensors' places do not depend on the metadata, so they can be hashed before the header is final
    metadata = {"format": "adatom", "format_version": FORMAT_VERSION, "adatom": text, "sha256": _hash(FORMAT_VERSION, text, header, data)}
    final = save(tensors, metadata)
    if _split(final) != ({**header, "__metadata__": metadata}, data):
        raise RuntimeError("safetensors laid the tensors out differently with metadata: the hash in the file would be wrong")
    Path(path).write_bytes(final)
    return {**document, "sha256": metadata["sha256"]}


def _split(raw):
    """The header of a safetensors file, and the bytes after it."""
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8:8 + length]), raw[8 + length:]


def _hash(version, text, header, data):
    """What `sha256` of a file has to be: docs/model_file.md. `text`: the document."""
    digest = hashlib.sha256()
    if int(version) >= 3:
        lines = [f"adatom {version}", text]
        for name, t in sorted(header.items(), key=lambda item: item[0].encode()):
            if name != "__metadata__":
                lines.append(f"{name} {t['dtype']} {','.join(map(str, t['shape']))} {t['data_offsets'][0]} {t['data_offsets'][1]}")
        digest.update("".join(line + "\n" for line in lines).encode())
    digest.update(data)
    return digest.hexdigest()


def read_model(path):
    """Reads a model file of any version: (tensors, document), the document with `sha256`. Raises ValueError if it is not one, or if it does not have the
    hash that it states."""
    from safetensors.numpy import load

    raw = Path(path).read_bytes()
    try:
        header, data = _split(raw)
        metadata = header["__metadata__"]
        document = json.loads(metadata["adatom"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a model file of this package: its header has no metadata `adatom`") from error
    version = metadata.get("format_version")
    if metadata.get("format") != "adatom" or version not in ("1", "2", "3"):
        raise ValueError(f"{path} has format {metadata.get('format')!r} version {version!r}: expected 'adatom' version '1' to {FORMAT_VERSION!r}")
    stated = (metadata if int(version) >= 3 else document).get("sha256")
    digest = _hash(version, metadata["adatom"], header, data)
    if digest != stated:
        raise ValueError(f"{path} is damaged: it hashes to {digest}, its header says {stated}")
    return load(raw), {**document, "sha256": stated}


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
