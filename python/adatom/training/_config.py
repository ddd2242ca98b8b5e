# SPDX-License-Identifier: MIT
"""Reading a configuration: TOML, with paths relative to the file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def load_config(file: str | Path) -> dict[str, Any]:
    """The configuration in a TOML file. Relative paths in it count from the file's folder. ValueError, with the line, if it is not TOML."""
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"no configuration at {file}")
    try:
        config = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is not TOML: {error}" + (": save it as UTF-8" if isinstance(error, UnicodeDecodeError) else "")) from error
    except RecursionError as error:
        raise ValueError(f"{file} is nested too deeply: a configuration has tables, and lists of lists at most") from error
    folder = file.resolve().parent

    def absolute(table: Any, key: str) -> None:
        if not isinstance(table, dict) or key not in table:
            return
        value = table[key]
        if isinstance(value, str) and value:
            table[key] = str(folder / value)
        elif isinstance(value, list) and all(isinstance(v, str) for v in value):
            table[key] = [str(folder / v) for v in value]

    for key in ("train", "valid", "test", "isolated_atoms"):
        absolute(config.get("data"), key)
    absolute(config.get("model"), "file")
    config.setdefault("output", "run")
    absolute(config, "output")
    return config
