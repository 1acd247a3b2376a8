"""Results of studies by what decided them: computed once, then read from `data/runs/<hash>` or a run's own folder."""

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from ...corpus.store import Corpus, sha256
from ...models.load import training_run
from ...nn.checkpoint import dump_json
from . import runs as training_runs

CONFIG, RESULT, STATS = "config.json", "result.json", "stats.nc"
OWN = "MECHANISM_STUDIES"
"""Environment variable with the folder of a run of its own: what is computed goes there, committed records are read."""


class StudyError(ValueError):
    """A record of a study that cannot be used, or a result that cannot be kept; the sentence says what to do."""


def texts_hash(corpora: Iterable[Corpus]) -> str:
    """Sixteen hexadecimal digits over names, rows and texts of corpora, in their order: committed or the user's."""
    digest = hashlib.sha256()
    for corpus in corpora:
        rows = "\n".join(f"{row.id}\t{row.group}\t{row.split}" for row in corpus.rows)
        digest.update(f"{corpus.name}\0{rows}\0".encode())
        for code, texts in corpus.columns.items():
            digest.update("\0".join((code, *texts, "")).encode())
    return digest.hexdigest()[:16]


def address(config: Mapping[str, Any], data: str) -> str:
    """Twelve hexadecimal digits of the SHA-256 of what was asked and of the data.

    Raises:
        StudyError: the configuration does not name its `study`, or holds something that JSON does not know.
    """
    if not config.get("study"):
        raise StudyError("the configuration of a study needs its name, under `study`")
    try:
        payload = json.dumps({"config": dict(config), "data": data}, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StudyError(f"the configuration of study {config['study']!r} is not plain JSON: {error}") from None
    return hashlib.sha256(payload.encode()).hexdigest()[:12]


def recorded(config: Mapping[str, Any], data: str) -> xr.Dataset | None:
    """The result in the record of a study, None where there is no record; `seconds` and `command` are in its
    attributes beside those of the result.

    Raises:
        StudyError: the result is not the one that was recorded.
    """
    places = (place / address(config, data) for place in _places())
    folder = next((place for place in places if (place / RESULT).exists()), None)
    return None if folder is None else _read(folder)


def _read(folder: Path) -> xr.Dataset:
    result = json.loads((folder / RESULT).read_text("utf-8"))
    path = folder / STATS
    if not path.exists() or sha256(path.read_bytes()) != result["sha256"]:
        raise StudyError(
            f"{path} is corrupted: its sha256 is not the one in {RESULT}; restore it from version control, "
            "or delete its folder to compute it again"
        )
    found = xr.load_dataset(path)
    return found.assign_attrs({"record": folder.name, **{key: result[key] for key in ("seconds", "command")}})


def stored(config: Mapping[str, Any], data: str, compute: Callable[[], xr.Dataset], command: str = "") -> xr.Dataset:
    """The result of a study: read from its record, or computed, recorded and then read.

    Args:
        config: everything that decides the result besides the data: JSON values, the study's name under `study`, the
            model by `models.load.model_hash`. Settings that cannot change it (device, batch size) stay out.
        data: hash of what is read; see `texts_hash`.
        compute: makes the result; floats are kept as float32.
        command: what makes the record again, for readers.

    Raises:
        StudyError: see `address` and `recorded`; the disk is full or cannot be written to.
    """
    found = recorded(config, data)
    if found is not None:
        return found
    start = time.perf_counter()
    result = compute()
    seconds = time.perf_counter() - start
    folder = _places()[0] / address(config, data)
    try:
        _write(folder, config, data, result, {"command": command, "seconds": round(seconds, 1)})
    except OSError as error:
        raise StudyError(
            f"cannot write {folder}: {error.strerror or error}; free some space and run it again"
        ) from error
    kept = recorded(config, data)
    assert kept is not None
    return kept


def _places() -> list[Path]:
    """Folders of records, the one to write to first."""
    own = os.environ.get(OWN)
    return [Path(own), training_runs.RUNS] if own else [training_runs.RUNS]


def _write(folder: Path, config: Mapping[str, Any], data: str, result: xr.Dataset, about: dict[str, Any]) -> None:
    """Write a record whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".study-", dir=folder.parent))
    try:
        dump_json(draft / CONFIG, {**config, "data": data})
        encoding = {
            name: {"zlib": True, "complevel": 9} | ({"dtype": "float32"} if values.dtype.kind == "f" else {})
            for name, values in result.data_vars.items()
            if np.issubdtype(values.dtype, np.number)
        }
        result.to_netcdf(draft / STATS, encoding=encoding)
        machine = {"torch": torch.__version__.split("+")[0], "threads": torch.get_num_threads()}
        dump_json(draft / RESULT, {**about, **machine, "sha256": sha256((draft / STATS).read_bytes())})
        shutil.rmtree(folder, ignore_errors=True)
        os.chmod(draft, 0o755)
        draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


SEEDS = ("embedded", "seed1", "seed2")
"""A model of each training seed; the first one has read more than the others."""
_FIRST = ("main", "seed0")  # runs of the first one's seed: the second stops where the others do


def other_seeds(spec: str) -> list[str]:
    """Names of the models of the other training seeds; none for a model that no training of the report made."""
    run = training_run(spec)
    own = SEEDS[0] if run in _FIRST else run
    return [name for name in SEEDS if name != own] if own in SEEDS else []


def recorded_of(spec: str, key: Mapping[str, Any], data: str) -> dict[str, xr.Dataset]:
    """By name, what is recorded of models of other training seeds under the same key and texts.

    Args:
        key: of the model's own record, its hash under `model`; data: hash of the texts.
    """
    found, seeds = {}, other_seeds(spec)
    for config, _ in recordings(key["study"]):
        if config["data"] == data and config.get("model", key["model"]) != key["model"]:
            kept = recorded({**key, "model": config["model"]}, data)
            if kept is not None and kept.attrs.get("name") in seeds:
                found[str(kept.attrs["name"])] = kept
    return found


def recordings(study: str) -> Iterator[tuple[dict[str, Any], Callable[[], xr.Dataset]]]:
    """What was asked in every record of a study, the hash of the texts under `data`, and what reads its result; see
    `recorded`. Records that are being written are left out."""
    for path in sorted(training_runs.RUNS.glob(f"[!.]*/{CONFIG}")):
        config = json.loads(path.read_text("utf-8"))
        if config.get("study") == study:
            yield config, partial(_read, path.parent)
