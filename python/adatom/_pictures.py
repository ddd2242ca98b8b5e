# SPDX-License-Identifier: MIT
"""Pictures that appear whole or not at all."""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from pathlib import Path


def save(figure, file: str | os.PathLike[str], dpi: int) -> Path:
    """Writes a figure of matplotlib, in the format of the file's ending, and closes it. OSError, naming the file, where it cannot be written: what was there
    stays."""
    import matplotlib.pyplot as plt

    file = Path(file)
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi, format=file.suffix[1:].lower() or "png")
    plt.close(figure)
    target = Path(os.path.realpath(file))
    if target.exists() and not target.is_file():
        raise OSError(f"cannot write the picture {file}: it exists and is no regular file; give the name of a file")
    temporary = None
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, target)
    except OSError as error:
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise OSError(f"cannot write the picture {file}: {error.strerror or error}; free some space, or write to another folder") from error
    return file


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
