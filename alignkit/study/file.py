"""Studies as TOML files, read in full or in one of the smaller versions that they declare."""

from __future__ import annotations

import tomllib
from pathlib import Path

from alignkit.errors import StudyError
from alignkit.paths import given_path, kind_of
from alignkit.settings.modules import find_modules_beside
from alignkit.study.profiles import with_profile
from alignkit.study.study import Study

MOST_BYTES = 64 * 2**20


def load_study(path: str | Path, *, profile: str | None = None, own_modules: bool = True) -> Study:
    """Read a study file; every error names the file, the key, what was expected and what came.

    Modules of the user's own that it names ("module:Class") are looked for in the file's folder too. Without
    `own_modules` none is imported.
    """
    path = given_path(path, what="STUDY", error=StudyError)
    try:
        if (kind := kind_of(path)) not in ("a file", "nothing"):
            raise StudyError(f"{path}: expected a study file, as TOML; got {kind}. Give the path of the file itself")
        if path.stat().st_size > MOST_BYTES:
            raise StudyError(
                f"{path}: expected a study file of at most {MOST_BYTES // 2**20} MiB; got "
                f"{path.stat().st_size / 2**20:,.0f}. Give the study, not its data"
            )
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise StudyError(f"{path}: no such study file. Expected a TOML file, or the name of a shipped study") from None
    except OSError as error:
        raise StudyError(f"{path}: expected a readable TOML file; got: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: expected a readable TOML file in UTF-8; got: {error.reason}") from None
    except (ValueError, RecursionError) as error:
        raise StudyError(f"{path}: not valid TOML: {error}. {_toml_mend(error)}") from None
    find_modules_beside(path, raw)
    if profile is not None:
        raw, source = with_profile(raw, profile, source=str(path)), f"{path} with profile {profile}"
        return Study.parse(raw, source=source, own_modules=own_modules)
    if "profile" in raw:
        raise StudyError(f"{path}: profile is not set in a file; got {raw['profile']!r}. Give --profile NAME")
    return Study.parse(raw, source=str(path), own_modules=own_modules)


def _toml_mend(error: Exception) -> str:
    """What to do about what the parser of TOML says: it names a line, the end, or no place at all."""
    text = str(error)
    if "at line" in text:
        return "Mend the line that it names"
    if "at end of document" in text:
        return "The last line is not finished: close its text, list or table"
    if isinstance(error, RecursionError):
        return "Lists or tables are nested too deeply: write them flat"
    return "Look for a number of very many digits: write it shorter, as 1e9 or as text"
