# SPDX-License-Identifier: MIT
"""Importers: models trained with other packages, written as model files (docs/model_file.md).

    from adatom.importers.mace import import_mace
    from adatom.importers.sevennet import import_sevennet
    from adatom.importers import write_model

    tensors, document = import_mace("mace.model", elements=[29, 8, 1])
    write_model("mace.safetensors", tensors, document)

An importer needs the package that trained the model (mace-torch or sevenn), since their files are pickles of its classes. Unpickling runs code:
import only files that you trust. The model file that comes out needs nothing of that.
"""
from ._modelfile import UnsupportedModel, read_model, restrict, write_model

__all__ = ["UnsupportedModel", "read_model", "restrict", "write_model"]
