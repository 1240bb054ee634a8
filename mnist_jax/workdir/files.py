"""Files of a run directory, and the rules for using a directory again."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from mnist_jax import config as configs
from mnist_jax.runtime import atomic
from mnist_jax.types import UserError

CONFIG = "config.json"
FINGERPRINT = "data_fingerprint"  # a key in it, next to the config's
METRICS = "metrics.jsonl"
TRIALS = "trials.jsonl"
SUMMARY = "summary.json"
PREDICTIONS = "predictions.npz"
OUT_OF_FOLD = "out_of_fold.npz"
REPORT = "report.html"
CHECKPOINTS = "checkpoints"
REFIT = "refit"  # in it: of cross-validation's last training, on all examples
TENSORBOARD = "tensorboard"
# Deleted when a run starts again. The summary first: while it is there, all the rest is.
_RESULTS = (
    *(SUMMARY, REPORT, PREDICTIONS, OUT_OF_FOLD),
    *(METRICS, TRIALS, TENSORBOARD, CHECKPOINTS),
)

_EPOCHS = "config.train.epochs"


@contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Lock a directory against other runs; the lock ends with the process.

    Args:
      workdir: created if it is not there.

    Raises:
      UserError: another run is using it, or it cannot be created or hold checkpoints.
    """
    name = os.fsencode(workdir.absolute()).decode(errors="replace")
    if "\\" in name or "\N{REPLACEMENT CHARACTER}" in name:  # TensorStore could not use it
        raise UserError(
            f"{workdir}: its path has a backslash or bytes that are not UTF-8, where no checkpoint "
            "can be kept; give another --workdir"
        )
    try:
        if not workdir.exists():
            workdir.mkdir(parents=True, exist_ok=True)
        directory = os.open(workdir, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise _not_writable(workdir, error) from error
    try:
        fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        # Some network file systems lock no directories; runs go there all the same.
        if error.errno == errno.EWOULDBLOCK:
            os.close(directory)
            raise UserError(
                f"{workdir}: another run is using it; wait for its end, or give another --workdir"
            ) from error
    try:
        yield
    finally:
        os.close(directory)


def prepare(
    workdir: Path,
    config: Mapping[str, Any],
    fingerprint: str,
    *,
    overwrite: bool,
    extends: bool = False,
) -> None:
    """Prepare a directory for a config's run: new, resumed, trained longer, or finished.

    What a killed run was writing there when it was killed is removed.

    Args:
      workdir: is there, and locked.
      config: a plain dict.
      fingerprint: of the data; `config.json` holds it with the config.
      overwrite: delete the run that is there, and nothing that it did not make.
      extends: the run that is there may have had fewer epochs, because its first ones are the same.

    Raises:
      UserError: it holds another config's run or other people's files, or cannot be written.
    """
    try:
        there = _stored(workdir)
        found = list(workdir.iterdir())
        temporary = [f for f in found if atomic.target_name(f) in (CONFIG, *_RESULTS)]
        if there is None and len(found) > len(temporary):
            raise UserError(f"{workdir}: holds files but no run; give another --workdir")
        longer = False
        if there is not None and not overwrite:
            longer = _check_same(workdir, there, config, fingerprint)
            if longer and not extends:
                raise UserError(
                    f"{workdir}: was planned for fewer epochs, and its learning rate has fallen "
                    "accordingly (config.optim.schedule); give another --workdir, where "
                    f"--config.init_from={workdir} starts from its best epoch"
                )
        for path in temporary:
            path.unlink()
        if there is None or overwrite or longer:
            kept = (CHECKPOINTS,) if longer else ()
            for path in (workdir / name for name in _RESULTS if name not in kept):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        # A run that is resumed after its data has moved stores the new place.
        if there is None or overwrite or configs.differences(_with_defaults(there), config):
            write(workdir / CONFIG, to_json({**config, FINGERPRINT: fingerprint}))
    except OSError as error:
        raise _not_writable(workdir, error) from error


def _not_writable(workdir: Path, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(f"{workdir}: cannot write there ({reason}); give another --workdir")


def read_config(workdir: Path) -> tuple[ConfigDict, str]:
    """Read the config of the run in a workdir, and the fingerprint of its data.

    Keys that are newer than the run have their defaults.

    Raises:
      UserError: there is no run, or its config has keys that are unknown here.
    """
    there = _stored(workdir)
    if there is None:
        raise UserError(f"{workdir}: there is no run (no {CONFIG} that a run wrote)")
    _check_version(workdir, there)
    fingerprint = there.pop(FINGERPRINT)
    config = configs.default().lock()  # it knows the types that JSON does not
    try:
        config.update(there)
    except (KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(
            f"{workdir / CONFIG}: is of another version of mnist_jax ({reason}); train it again"
        ) from error
    return config.unlock(), fingerprint


def read_summary(workdir: Path) -> dict[str, Any]:
    """Read the summary of the finished run in a workdir.

    Raises:
      UserError: there is no run, or it is not finished.
    """
    read_config(workdir)
    if not (workdir / SUMMARY).exists():
        raise UserError(f"{workdir}: is not finished; repeat its command to resume it")
    return read_json(workdir / SUMMARY)


def _stored(workdir: Path) -> dict[str, Any] | None:
    """Return a run's config.json; None if it is missing or another program's."""
    try:
        there = read_json(workdir / CONFIG)
    except UserError as error:
        if isinstance(error.__cause__, FileNotFoundError | NotADirectoryError):
            return None
        raise
    return there if isinstance(there, dict) and FINGERPRINT in there else None


def _check_version(workdir: Path, stored: Mapping[str, Any]) -> None:
    if "members" in stored:
        raise UserError(
            f"{workdir}: was written by mnist_jax 0.1, which this version cannot read; train it "
            "again with --overwrite, or use version 0.1"
        )


def _check_same(
    workdir: Path, there: dict[str, Any], config: Mapping[str, Any], fingerprint: str
) -> bool:
    """Refuse another config's run; return whether this config only has more epochs."""
    _check_version(workdir, there)
    same_data = there.pop(FINGERPRINT) == fingerprint
    stored = _with_defaults(there)
    differ = [f"config.{key}" for key in configs.differences(stored, config, same_data=same_data)]
    more = config["train"]["epochs"] > stored["train"]["epochs"]
    if differ == [_EPOCHS] and more and same_data:
        return True
    if not same_data and not differ:
        differ = ["the data (another fingerprint)"]
    if differ:
        raise UserError(
            f"{workdir}: holds another run, which differs in {', '.join(differ)}; "
            "give another --workdir, or --overwrite to start again"
        )
    return False


def _with_defaults(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Add the keys that are newer than a stored config, with their defaults."""

    def fill(default: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        sections = [k for k, v in default.items() if isinstance(v, Mapping) and k in given]
        return {**default, **given, **{k: fill(default[k], given[k]) for k in sections}}

    return fill(configs.default().to_dict(), stored)


def write(path: Path, content: str | bytes) -> None:
    """Write a whole file or none.

    Raises:
      UserError: it cannot be written.
    """
    try:
        with atomic.replacing(path) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(
            f"{path}: cannot be written ({reason}); make room, or write elsewhere"
        ) from error


def to_json(value: Any) -> str:
    """Indented JSON with a last newline; NaN is refused."""
    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def to_rows(rows: Iterable[Mapping[str, Any]]) -> str:
    """Format each row as a line of JSON."""
    return "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
      UserError: it is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error})") from error


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text().splitlines()]
