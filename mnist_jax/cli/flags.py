"""Parse the command line of `python -m mnist_jax.main`."""

import argparse
import ast
import copy
import functools
import inspect
import json
import re
import runpy
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from mnist_jax import config as configs
from mnist_jax.runs import space
from mnist_jax.runtime import output, paths
from mnist_jax.runtime.arguments import Parser
from mnist_jax.types import UserError

USAGE = """\
usage: python -m mnist_jax.main --config=FILE[:DATASET] [--config.KEY=VALUE]...
       python -m mnist_jax.main --mode=evaluate --workdir=DIR [--split=test]
           [--config=FILE:DATASET | --config.data.KEY=VALUE]

Train a small-image classifier and write checkpoints, metrics and a report to
the workdir. The same command resumes a run that was stopped.

  --config=FILE[:DATASET]  linear, mlp, fast, cnn (configs/cnn.py) or your own
                           file; on mnist (default), fashion_mnist, digits,
                           csv:PATH, images:DIR (a folder per class) or a tfds
                           builder; or a net of an earlier study:
                           study:NET[,DATASET]
  --config.KEY=VALUE       override a key of the config, as in
                           --config.train.epochs=3; any number of these
  --config.sweep.seeds=20, --config.sweep.folds=10,
  --config.sweep.grid='{"optim.learning_rate": [1e-3, 3e-3]}', and .random:
                           train many times in one run; the hyperparameters best
                           on validation are evaluated on the test split
  --name=NAME              directory of the run: runs/NAME (default: a name made
                           of the config, data set, seed and overrides)
  --workdir=DIR            directory of the run, anywhere
  --overwrite              delete the run in the workdir and start again
  --summary                print the model layer by layer, and do nothing else
  --mode=train|evaluate    evaluate: only evaluate the best checkpoint there, on
                           its run's data or that of --config; the run need not
                           be finished
  --split=train|val|test   split to evaluate (default: test)
  --compilation_cache=DIR  where to keep compiled programs; off: keep none
                           (default: $JAX_COMPILATION_CACHE_DIR, else the user's
                           cache directory)
  --coordinator=HOST:PORT  of several processes: the address of the first,
  --num_processes=N        their number, and
  --process_id=I           the index of this one, 0 to N - 1
  --distributed            take these three from Slurm, Open MPI, a TPU pod or
                           Kubernetes
  --help                   print this text and every key of the config, with its
                           value; without --config, with its default

--config.train.augment=none, mild or strong sets all augmentations at once.
"""

_FLAGS: dict[str, type] = {
    **dict.fromkeys(("--workdir", "--name", "--compilation_cache", "--coordinator"), str),
    **dict.fromkeys(("--num_processes", "--process_id"), int),
    **dict.fromkeys(("--overwrite", "--summary", "--distributed", "--help"), bool),
}


# Keys of the data that only training reads: an evaluation splits as the run did.
OF_TRAINING = ("data.val_size", "data.split_seed", "data.offline_fallback")


class Options(NamedTuple):
    """The parsed command line."""

    mode: str
    config: ConfigDict  # empty without --config
    config_name: str  # the stem of its file; of configs/study.py:NET also the net
    overridden: Mapping[str, Any]  # keys that the command line sets, in its order, and the values
    workdir: Path | None
    split: str
    overwrite: bool
    summary: bool
    compilation_cache: str | None
    cluster: tuple[str, int, int] | tuple[()] | None  # arguments of `multihost.start`, or None
    help: bool
    argv: Sequence[str]  # as typed


def parse(argv: Sequence[str], dataset: str | None = None) -> Options:
    """Parse the arguments that follow the program's name.

    Args:
      argv: as in sys.argv[1:].
      dataset: replaces the data set that argv names.

    Raises:
      UserError: an argument is unknown, has the wrong type or an invalid value.
    """
    words = [re.sub("^-(?=[a-z]{2})", "--", word) for word in argv]  # -NAME is --NAME
    first = Parser(add_help=False)
    first.add_argument("--config")
    first.add_argument("--mode", default="train")
    found, rest = first.parse_known_args(words)
    file, rest = found.config, [*rest, f"--mode={found.mode}"]
    if dataset and file:
        rest = [*rest, f"--config.data.name={dataset}"]
    rest = [_rename(word, quiet=dataset is not None) for word in rest]
    keys = [match[1] for word in rest if (match := re.match(r"--(?:no)?config\.([^=]*)", word))]
    if keys and not file and found.mode == "train":
        raise UserError("--config.KEY=VALUE: overrides a config; give --config=configs/cnn.py too")
    # Without a file, overrides are of the config of the run that is evaluated.
    own = configs.default() if keys else ConfigDict()
    config, config_name = _read(file, dataset) if file else (own, "")
    if file:
        configs.check_keys(config)
    types = dict(_types(config)) | ({"train.augment": str} if file or keys else {})
    for key in keys:
        if key not in types:
            raise configs.no_such_key(key, types)
    for word in rest:
        _suggest_key(word)
    values = _parse_flags(rest, _FLAGS | {f"--config.{key}": kind for key, kind in types.items()})
    workdir = _workdir(values)
    if not values.help and not (file if values.mode == "train" else workdir):
        needed = "--config=configs/cnn.py" if values.mode == "train" else "--workdir=runs/NAME"
        raise UserError(f"{needed}: is needed to {values.mode}; see --help")
    overrides = {
        name.removeprefix("config."): value
        for name, value in vars(values).items()
        if name.startswith("config.")
    }
    if file or keys:
        without_effect = configs.unused(config)
        configs.override(config, overrides)
        # What the file set for a component that the command line replaces is dropped.
        stale = configs.unused(config).keys() - without_effect.keys() - overrides.keys()
        configs.clear(config, stale)
        configs.validate(config)
        space.expand(config)
        space.check_used(config)
    cache = values.compilation_cache
    return Options(
        mode=values.mode,
        config=config.lock(),
        config_name=config_name,
        overridden=overrides,
        workdir=workdir,
        split=values.split,
        overwrite=bool(values.overwrite),
        summary=bool(values.summary),
        compilation_cache=cache and str(paths.expand(cache)),
        cluster=_cluster(values),
        help=bool(values.help),
        argv=argv,
    )


def refuse_ineffective(options: Options) -> None:
    """Raise UserError if the mode ignores a flag that was typed."""
    typed = {match[1] for word in options.argv if (match := re.match("--?([a-z_]+)", word))}
    if options.mode == "train":
        if "split" in typed:
            raise UserError("--split: has no effect without --mode=evaluate; drop it")
        return
    for flag in ("overwrite", "summary"):
        if flag in typed:
            raise UserError(f"--{flag}: has no effect with --mode=evaluate; drop it")
    for key in options.overridden:
        if not key.startswith("data.") or key in OF_TRAINING:
            raise UserError(
                f"--config.{key}: has no effect with --mode=evaluate, which takes no more than the "
                "data set from a config; drop it"
            )


def _suggest_key(word: str) -> None:
    """Raise UserError for a flag such as --epochs=3, which stands for --config.train.epochs=3."""
    flag, equals, value = word.partition("=")
    if not flag.startswith("--") or flag in (*_FLAGS, "--mode", "--split"):
        return
    name = flag[2:].replace("-", "_")
    keys = [key for key in configs.OPTIONS if configs.stands_for(name, key)]
    if len(keys) == 1:
        flag = f"{flag}: no such flag; did you mean --config.{keys[0]}{equals}{value}?"
        raise UserError(flag)


def _mode(text: str) -> str:
    if f"--{text}" in _FLAGS:
        raise UserError(f"--mode={text}: no such mode; did you mean --{text}?")
    return text


def _parse_flags(words: Sequence[str], types: dict[str, type]) -> argparse.Namespace:
    """Parse flags of the given types; keys of the config that are not set are left out."""
    parser = Parser(add_help=False)
    parser.add_argument("--mode", type=_mode, choices=["train", "evaluate"], default="train")
    parser.add_argument("--split", choices=["train", "val", "test"], default="test")
    for flag, kind in types.items():
        default = None if flag in _FLAGS else argparse.SUPPRESS
        parser.add_argument(flag, type=functools.partial(_value, flag, kind), default=default)
    explicit = {flag: f"{flag}=true" for flag, kind in types.items() if kind is bool}
    explicit |= {flag.replace("--", "--no", 1): f"{flag}=false" for flag in explicit}
    explicit["-h"] = explicit["--help"]
    return parser.parse([explicit.get(word, word) for word in words])


def _types(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, type]]:
    """Yield each dotted key that flags can set, and the type of its value."""
    for key, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _types(value, f"{prefix}{key}.")
        elif config.get_type(key) in _KINDS:
            yield prefix + key, config.get_type(key)


def _value(flag: str, kind: type, text: str) -> Any:
    """Parse the value of a flag; None stands for the default of a key that has one."""
    option = configs.OPTIONS.get(flag.removeprefix("--config."))
    if text == "None" and option and option.nullable:
        return None
    try:
        return _KINDS[kind](text)
    except (KeyError, SyntaxError, ValueError) as error:
        raise UserError(f"{flag}={text}: is not {configs.EXPECTED[kind]}") from error


def _tuple(text: str) -> tuple[Any, ...]:
    value = ast.literal_eval(text)
    return tuple(value) if isinstance(value, tuple | list) else (value,)


_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}
_KINDS: dict[type, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    bool: lambda text: _BOOLEANS[text.lower()],
    tuple: _tuple,
    object: str,  # parsed by the readers of the key
}


def _rename(word: str, *, quiet: bool) -> str:
    """Return a flag under the present name of its key, and tell the user about it once."""
    match = re.fullmatch(r"(--(?:no)?config\.)([^=]*)(.*)", word, re.DOTALL)
    new = configs.renamed(match[2]) if match else ""
    if not match or new == match[2] or new not in configs.OPTIONS:
        return word
    if not quiet:
        output.warn(f"config.{match[2]}: is now config.{new}")
    return f"{match[1]}{new}{match[3]}"


def _workdir(values: argparse.Namespace) -> Path | None:
    """Return the directory of --workdir or --name; None without both."""
    name = values.name
    if name is None:
        return paths.expand(values.workdir) if values.workdir else None
    if values.workdir:
        raise UserError(f"--name={name}: is runs/{name}; drop it or --workdir")
    if not name or name != Path(name).name or name == "..":
        raise UserError(f"--name={name}: is not the name of a directory; give --workdir for a path")
    return Path("runs", name)


def _cluster(values: argparse.Namespace) -> tuple[str, int, int] | tuple[()] | None:
    """Return the arguments of `multihost.start`; None for a single process."""
    address, count, index = values.coordinator, values.num_processes, values.process_id
    given = [value is not None for value in (address, count, index)]
    if any(given) and values.distributed:
        raise UserError(
            "--distributed: replaces --coordinator, --num_processes and --process_id; drop these"
        )
    if any(given) != all(given):
        raise UserError(
            "--coordinator=HOST:PORT --num_processes=N --process_id=I: give all three, or "
            "--distributed on a cluster that sets them"
        )
    if not any(given):
        return () if values.distributed else None
    port = re.fullmatch(r".+:(\d+)", address)
    if not port or not 0 < int(port[1]) < 2**16:
        raise UserError(f"--coordinator={address}: is not HOST:PORT, as in 10.0.0.1:1234")
    if count < 1:
        raise UserError(f"--num_processes={count}: must be 1 or more")
    if not 0 <= index < count:
        raise UserError(f"--process_id={index}: must be 0 to {count - 1} for {count} processes")
    return address, count, index


def _read(file: str, dataset: str | None = None) -> tuple[ConfigDict, str]:
    """Return what the get_config() of --config=file returns, and the config's name.

    `dataset` replaces the argument unless get_config() takes a net (NET or NET,DATASET).
    """
    path, *argument = file.split(":", 1)
    if re.fullmatch(r"\w+", path) and not Path(path).is_file():  # cnn is configs/cnn.py
        path = f"configs/{path}.py"
    name = Path(path).stem
    package = Path(__file__).parents[1]
    folders = [package, package.parent]  # where configs/ is: in a wheel, in a checkout
    if Path(path).parent == Path("configs") and not Path(path).is_file():
        path = next((str(folder / path) for folder in folders if (folder / path).is_file()), path)
    if not Path(path).is_file():
        shipped = {f"configs/{p.name}" for folder in folders for p in folder.glob("configs/*.py")}
        meant = f"configs/{name}.py"
        hint = f"there are {', '.join(sorted(shipped))}"
        if meant in shipped:
            hint = f"did you mean --config={':'.join([meant, *argument])}?"
        raise UserError(f"--config={file}: no such file; {hint}")
    try:
        get_config = runpy.run_path(path).get("get_config", lambda *_: None)
        parameters = inspect.signature(get_config).parameters
        if argument and "net" in parameters:
            name += f"-{argument[0].partition(',')[0]}"
        elif dataset and parameters:
            argument = [dataset]
        config = get_config(*argument)
    except UserError:
        raise
    except Exception as error:  # the file may raise anything
        frames = traceback.extract_tb(error.__traceback__)
        where = [path, *(f"{path}:{frame.lineno}" for frame in frames if frame.filename == path)]
        what = " ".join(str(error).split())
        raise UserError(f"{where[-1]}: {type(error).__name__}: {what}") from error
    if not isinstance(config, ConfigDict):
        raise UserError(f"--config={file}: has no get_config() that returns a ConfigDict")
    return config, name


def help_text(config: ConfigDict) -> str:
    """Return how to use the command, followed by the keys of a config, or of the default one.

    Each key has the value that a run would use, with its meaning, the allowed values, and its
    default where that is another.
    """
    config = config if len(config) else configs.default()
    plain = copy.deepcopy(config)
    configs.clear(plain, [key for key, option in configs.OPTIONS.items() if option.nullable])
    values, defaults = configs.effective(config), configs.effective(plain)
    lines, pad = [USAGE], " " * 6
    for key, option in configs.OPTIONS.items():
        default = defaults[key] if option.nullable else option.default
        shown, usual = _as_flag(values[key]), _as_flag(default)
        names, allowed = configs.readers(key), configs.describe(option.allowed)
        facts = [option.help, allowed, f"of {configs.describe(names)}" if names else ""]
        facts += [f"default: {usual}"] if usual != shown else []
        lines += textwrap.wrap(f"  --config.{key}={shown}", 80, subsequent_indent=pad)
        lines += textwrap.wrap(
            "; ".join(filter(None, facts)), 80, initial_indent=pad, subsequent_indent=pad
        )
    return "\n".join(lines)


def _as_flag(value: Any) -> str:
    """Return a value as it is typed: tuples without parentheses, if that is unambiguous."""
    if isinstance(value, tuple | list):
        return ",".join(map(str, value)) if value else "()"
    return json.dumps(value) if isinstance(value, dict) else str(value)
