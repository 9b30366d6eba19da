"""Studies as TOML files, read in full or in one of the smaller versions that they declare."""

from __future__ import annotations

import tomllib
from pathlib import Path

from alignkit.errors import StudyError
from alignkit.settings.modules import find_modules_beside
from alignkit.study.profiles import with_profile
from alignkit.study.study import Study


def load_study(path: str | Path, *, profile: str | None = None) -> Study:
    """Read a study file; every error names the file, the key, what was expected and what came.

    Modules of the user's own that it names ("module:Class") are looked for in the file's folder too.
    """
    path = Path(path)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise StudyError(f"{path}: no such study file. Expected a TOML file, or the name of a shipped study") from None
    except OSError as error:
        raise StudyError(f"{path}: expected a readable TOML file; got: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise StudyError(f"{path}: expected a readable TOML file in UTF-8; got: {error.reason}") from None
    except (tomllib.TOMLDecodeError, ValueError, RecursionError) as error:
        raise StudyError(f"{path}: not valid TOML: {error}. Mend the line that it names") from None
    find_modules_beside(path, raw)
    if profile is not None:
        return Study.parse(with_profile(raw, profile, source=str(path)), source=f"{path} with profile {profile}")
    if "profile" in raw:
        raise StudyError(f"{path}: profile is not set in a file; got {raw['profile']!r}. Give --profile NAME")
    return Study.parse(raw, source=str(path))
