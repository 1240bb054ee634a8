"""The command line: flags in, options out, and a user's mistakes in one line."""

import inspect
import re
import runpy
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from mnist_jax import config as configs
from mnist_jax.runs import space
from mnist_jax.types import UserError

USAGE = """\
usage: python -m mnist_jax.main --config=configs/cnn.py[:DATASET] [--config.KEY=VALUE ...]
       python -m mnist_jax.main --mode=evaluate --workdir=runs/NAME [--split=test]

Trains a small-image classifier and leaves its checkpoints, metrics and report in the workdir.
The same command goes on with a run that was stopped.

  --config=FILE[:DATASET]  what to train: configs/linear.py, mlp.py, fast.py or cnn.py, on mnist
                           (default), fashion_mnist, digits, csv:PATH or a tfds builder; or
                           configs/study.py:NET[,DATASET], a net of an earlier study
  --config.KEY=VALUE       one value of it, as in --config.train.epochs=3; any number of them
  --workdir=DIR            where the run lives (default: runs/<config>-<dataset>-s<seed>, and what
                           is overridden)
  --config.members.seeds=20, --config.members.folds=10,
  --config.members.grid='{"optim.learning_rate": [1e-3, 3e-3]}', and .random: many trainings in one
                           run; the best setting by validation is judged on the test split
  --overwrite              delete the run that is there and start anew
  --summary                only print the model, layer by layer
  --mode=train|evaluate    evaluate: judge the best checkpoint of a workdir, finished or running,
                           by the config that it was trained with
  --split=train|val|test   what to judge it on (default: test)
  --compilation_cache=DIR  where compiled programs are kept for the next start; off: nowhere
                           (default: $JAX_COMPILATION_CACHE_DIR, else the user's cache directory)
  --coordinator=HOST:PORT  several processes do this together: where the first of them listens;
  --num_processes=N        how many they are; and
  --process_id=I           which one this is, 0 to N - 1
  --distributed            in place of these three: as Slurm, Open MPI, a TPU pod or Kubernetes says
  --help                   this text; with --config, every key of it and its value too
"""


class Options(NamedTuple):
    """What the command line asks for."""

    mode: str
    config: ConfigDict  # empty without --config
    config_name: str  # the stem of its file; of configs/study.py:NET also the net
    overridden: Sequence[str]  # its keys that the command line sets, as they come
    workdir: Path | None
    split: str
    overwrite: bool
    summary: bool
    compilation_cache: str | None
    cluster: tuple[str, int, int] | tuple[()] | None  # arguments of `processes.start`; None: alone
    help: bool
    argv: Sequence[str]  # what was typed


def parse(argv: Sequence[str], dataset: str | None = None) -> Options:
    """Reads the arguments after the program's name.

    Args:
      argv: as in sys.argv[1:].
      dataset: takes the place of the data set that argv names.

    Raises:
      UserError: an argument is unknown, has the wrong type or an impossible value.
    """
    file, rest = _take_config(argv)
    if dataset and file:
        rest = [*rest, f"--config.data.name={dataset}"]
    overrides = [match[1] for arg in rest if (match := re.match(_OVERRIDE, arg))]
    if overrides and not file:
        raise UserError("--config.KEY=VALUE: overrides a config; give --config=configs/cnn.py too")
    config, config_name = _read(file, dataset) if file else (ConfigDict(), "")
    known = dict(configs.flatten(config.to_dict()))
    for key in overrides:
        if key not in known:
            raise configs.no_such_key(key, known)
    values = _define(rest, config)
    if not values.help and not (file if values.mode == "train" else values.workdir):
        needed = "--config=configs/cnn.py" if values.mode == "train" else "--workdir=runs/NAME"
        raise UserError(f"{needed}: is needed to {values.mode}; see --help")
    if file:
        configs.validate(config)
        space.expand(config)
    cache = values.compilation_cache
    return Options(
        mode=values.mode,
        config=config,
        config_name=config_name,
        overridden=list(dict.fromkeys(overrides)),
        workdir=Path(values.workdir).expanduser() if values.workdir else None,
        split=values.split,
        overwrite=values.overwrite,
        summary=values.summary,
        compilation_cache=cache and str(Path(cache).expanduser()),
        cluster=_cluster(values),
        help=values.help,
        argv=argv,
    )


_OVERRIDE = r"--?(?:no)?config\.([^=]*)"


def _define(args: Sequence[str], config: ConfigDict) -> flags.FlagValues:
    """Our flags, parsed, and the config overridden; absl's own hundred are not among them."""
    values = flags.FlagValues()
    typed = ["mnist_jax", *args]
    flags.DEFINE_enum("mode", "train", ["train", "evaluate"], "", flag_values=values)
    flags.DEFINE_enum("split", "test", ["train", "val", "test"], "", flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "", flag_values=values)
    flags.DEFINE_bool("summary", False, "", flag_values=values)
    flags.DEFINE_string("compilation_cache", None, "", flag_values=values)
    flags.DEFINE_string("coordinator", None, "", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "", flag_values=values)
    flags.DEFINE_integer("process_id", None, "", flag_values=values)
    flags.DEFINE_bool("distributed", False, "", flag_values=values)
    flags.DEFINE_bool("help", False, "", short_name="h", flag_values=values)
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=typed)
        extra = values(typed)[1:]
    except flags.UnrecognizedFlagError as error:
        hint = configs.suggestion(error.flagname, values) or "; see --help"
        raise UserError(f"--{error.flagname}: no such flag{hint}") from error
    except flags.Error as error:
        raise UserError(_plain(str(error))) from error
    if extra:
        raise UserError(f"{extra[0]}: unexpected argument; flags are --NAME=VALUE, see --help")
    return values


def _cluster(values: flags.FlagValues) -> tuple[str, int, int] | tuple[()] | None:
    """Who else takes part, by the flags."""
    address, count, index = values.coordinator, values.num_processes, values.process_id
    given = [value is not None for value in (address, count, index)]
    if any(given) and values.distributed:
        raise UserError("--distributed: stands instead of --coordinator and what goes with it")
    if any(given) != all(given):
        raise UserError(
            "--coordinator=HOST:PORT --num_processes=N --process_id=I: give all three, or "
            "--distributed where a cluster's environment says them"
        )
    if not any(given):
        return () if values.distributed else None
    port = re.fullmatch(r".+:(\d+)", address)
    if not port or not 0 < int(port[1]) < 2**16:
        raise UserError(f"--coordinator={address}: is not HOST:PORT, as in 10.0.0.1:1234")
    if count < 1:
        raise UserError(f"--num_processes={count}: must be 1 or more")
    if not 0 <= index < count:
        raise UserError(f"--process_id={index}: of {count} processes the ids are 0 to {count - 1}")
    return address, count, index


def _plain(message: str) -> str:
    """What absl says of a wrong value, in words that are not Python's."""
    reasons = {
        "invalid literal for int": "is not a whole number",
        "could not convert string to float": "is not a number",
        "Non-boolean argument": "is not true or false",
        "Error while parsing string": "is not a tuple such as 64,32",
        "value should be one of": "is none of " + message.partition("<")[2].rstrip(">"),
    }
    for theirs, ours in reasons.items():
        if theirs in message:
            argument, _, _ = message.removeprefix("flag ").partition(": ")
            return f"{argument}: {ours}"
    return " ".join(message.removeprefix("flag ").split())


def _read(file: str, instead: str | None = None) -> tuple[ConfigDict, str]:
    """Return what the get_config() of --config=file returns, and the config's name.

    `instead` replaces the argument unless get_config() takes a net (NET or NET,DATASET).
    """
    path, *argument = file.split(":", 1)
    name = Path(path).stem
    if not Path(path).is_file():
        shipped = ", ".join(sorted(map(str, Path("configs").glob("*.py"))))
        raise UserError(
            f"--config={file}: no such file" + (f"; there are {shipped}" * bool(shipped))
        )
    try:
        get_config = runpy.run_path(path).get("get_config", lambda *_: None)
        parameters = inspect.signature(get_config).parameters
        if argument and "net" in parameters:
            name += f"-{argument[0].partition(',')[0]}"
        elif instead and parameters:
            argument = [instead]
        config = get_config(*argument)
    except UserError:
        raise
    except Exception as error:  # whatever the user's own code raises
        frames = traceback.extract_tb(error.__traceback__)
        where = [path, *(f"{path}:{frame.lineno}" for frame in frames if frame.filename == path)]
        what = " ".join(str(error).split())
        raise UserError(f"{where[-1]}: {type(error).__name__}: {what}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={file}: has no get_config() that returns a ConfigDict")
    return config, name


def _take_config(argv: Sequence[str]) -> tuple[str | None, list[str]]:
    """The value of the last --config, and the other arguments."""
    file, rest, args = None, [], iter(argv)
    for arg in args:
        if re.match(r"--?config=", arg):
            file = arg.partition("=")[2]
        elif re.fullmatch(r"--?config", arg):
            file = next(args, "")
        else:
            rest.append(arg)
    return file, rest


def help_text(config: ConfigDict) -> str:
    """How to use the command; with a config, its keys and values too."""
    keys = configs.flatten(config.to_dict())
    return "\n".join([USAGE, *(f"  --config.{key}={value}" for key, value in keys)])
