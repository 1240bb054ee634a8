"""The command line: help, values, and user errors with their exit codes."""

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
from shell import CNN, DIGITS, LINEAR, MLP, ROOT, content, refusal, typed

from mnist_jax import list as listing
from mnist_jax import main
from mnist_jax.cli import commands, flags
from mnist_jax.compare import __main__ as compare
from mnist_jax.explore import __main__ as explore
from mnist_jax.predict import __main__ as predict
from mnist_jax.types import UserError

# Help


def test_help_lists_every_flag():
    done = typed("--help", cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: python -m mnist_jax.main --config=")
    listed = set(re.findall(r"^  --(\w+)", done.stdout, re.MULTILINE))
    ours = {"config", "name", "workdir", "overwrite", "summary", "mode", "split", "help"}
    ours |= {"compilation_cache", "coordinator", "num_processes", "process_id", "distributed"}
    assert listed == ours
    assert {flag[2:] for flag in flags._FLAGS} == ours - {"config", "mode", "split"}


def test_every_command_has_help_of_80_columns():
    for command in (compare, explore, listing, predict):
        with pytest.raises(SystemExit, match="0"), redirect_stdout(io.StringIO()) as out:
            command.main(["--help"])
        name = command.__name__.removesuffix(".__main__")
        assert out.getvalue().startswith(f"usage: python -m {name} ")
        assert max(map(len, out.getvalue().splitlines())) <= 80
    assert max(map(len, flags.USAGE.splitlines())) <= 80


LIGHT = """
import importlib, json, sys
command = importlib.import_module(sys.argv[1])
codes = []
for argv in json.loads(sys.argv[2]):
    try:
        codes.append(command.main(argv))
    except SystemExit as error:
        codes.append(error.code)
heavy = {"jax", "jaxlib", "optax", "flax", "orbax", "tensorflow_datasets", "matplotlib", "sklearn"}
heavy |= {"scipy", "PIL", "jinja2"}
print("imported:", sorted(heavy & set(sys.modules)), codes)
"""


@pytest.mark.parametrize(
    ("module", "calls"),
    [
        ("main", [["--help"], [CNN, "--help"], ["--hepl"], [DIGITS, "--config.train.epocs=3"]]),
        ("predict.__main__", [["--help"], ["x.png", "--workdri=run"]]),
        ("compare.__main__", [["--help"], ["a", "b", "--pgae=x.html"]]),
        ("explore.__main__", [["--help"], ["--datset=digits"]]),
        ("list", [["--help"], ["--hlep"]]),
        ("__main__", [["--help"], ["trian"]]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_help_and_mistyped_flags_import_nothing_slow(module, calls):
    """Checks imports instead of wall time, which proves nothing on a busy machine."""
    command = [sys.executable, "-c", LIGHT, f"mnist_jax.{module}", json.dumps(calls)]
    # JAX cannot start on an unknown platform.
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "none"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    codes = [0 if "--help" in argv else 2 for argv in calls]
    assert done.stdout.splitlines()[-1] == f"imported: [] {codes}", done.stderr
    errors = done.stderr.splitlines()
    assert len(errors) == codes.count(2)
    assert all(re.match("error: .+ did you mean (--|config|train)", line) for line in errors)


@pytest.mark.parametrize("flag", ["--help", "-h", "-help"])
def test_help_with_a_config_shows_its_keys_and_their_values(capsys, flag):
    assert main.main([DIGITS, "--config.train.augment.zoom=0.25", flag]) == 0
    out, err = capsys.readouterr()
    assert out.startswith(flags.USAGE)
    assert "  --config.train.augment.zoom=0.25\n" in out
    assert "  --config.data.name=digits\n" in out
    assert err == ""


# What is understood


@pytest.mark.parametrize(
    ("args", "key", "value"),
    [
        (["--config.train.epochs=3"], "train.epochs", 3),
        (["--config.train.epochs", "3"], "train.epochs", 3),
        (["-config.train.epochs=3"], "train.epochs", 3),
        (["--config.train.epochs=3", "--config.train.epochs=4"], "train.epochs", 4),
        (["--config.optim.learning_rate=1"], "optim.learning_rate", 1.0),
        (["--config.optim.learning_rate=1e-4"], "optim.learning_rate", 1e-4),
        (["--config.data.val_size=100"], "data.val_size", 100.0),
        (["--noconfig.data.offline_fallback"], "data.offline_fallback", False),
        (["--config.data.offline_fallback=false"], "data.offline_fallback", False),
        (["--config.model.widths=64"], "model.widths", (64,)),
        (["--config.model.widths=64,32"], "model.widths", (64, 32)),
        (["--config.model.widths=(64, 32)"], "model.widths", (64, 32)),
        (["--config.model.dropout=.1"], "model.dropout", (0.1,)),
        (["--config.model.widths=64,"], "model.widths", (64,)),
        (["--config.model.widths=[64, 32]"], "model.widths", (64, 32)),
        (["--config.model.widths=()"], "model.widths", ()),
        (["--config.data.offline_fallback"], "data.offline_fallback", True),
        (["-noconfig.data.offline_fallback"], "data.offline_fallback", False),
        (["--config.sweep.share_batches", "--summary"], "sweep.share_batches", True),
        (["--config.data.archives=/some/where"], "data.archives", "/some/where"),
    ],
)
def test_a_value_of_the_config_is_overridden(args, key, value):
    for argv in ([f"{MLP}:digits", *args], [*args, f"{MLP}:digits"]):
        found = flags.parse(argv).config
        for part in key.split("."):
            found = found[part]
        assert found == value
        assert type(found) is type(value)


def test_all_that_is_typed_is_in_the_options():
    args = ["--workdir", "a/b", "--config", DIGITS.partition("=")[2], "--overwrite", "--summary"]
    options = flags.parse([*args, "--split=val"])
    assert options.workdir == Path("a/b")
    assert (options.mode, options.split, options.config_name) == ("train", "val", "linear")
    assert options.overwrite
    assert options.summary
    assert not options.help
    assert options.config.data.name == "digits"
    assert list(options.argv) == [*args, "--split=val"]


def test_of_two_configs_the_last_counts():
    assert flags.parse([f"{CNN}:digits", DIGITS]).config.model.name == "linear"


def test_another_data_set_takes_the_place_of_the_one_that_was_typed():
    """And with it come its own values, except for those that were typed."""
    for argv in ([LINEAR], [f"{LINEAR}:fashion_mnist"], [LINEAR, "--config.data.name=mnist"]):
        other = flags.parse([*argv, "--config.seed=7"], dataset="digits").config
        assert other.data.name == "digits"
        assert other.train.epochs == flags.parse([DIGITS]).config.train.epochs
        assert other.seed == 7


def test_a_second_config_file_is_read_afresh(tmp_path):
    """Files of configs have no memory of each other, in a notebook for instance."""
    empty = tmp_path / "empty.py"
    empty.write_text("")
    flags.parse([DIGITS])
    with pytest.raises(UserError, match="has no get_config"):
        flags.parse([f"--config={empty}"])


# User errors


MISTAKES = [
    ([DIGITS, "--config.train.epocs=3"], "config.train.epocs: no such key; did you mean config."),
    ([DIGITS, "--config.epochs=3"], "did you mean config.train.epochs?"),
    ([DIGITS, "--config.epochs", "3"], "did you mean config.train.epochs?"),
    ([DIGITS, "--noconfig.data.offline_falback"], "did you mean config.data.offline_fallback?"),
    ([DIGITS, "--config.train=3"], "config.train: no such key"),
    ([DIGITS, "--config.members.seeds=3"], "config.members.seeds: is now config.sweep.seeds"),
    ([DIGITS, "--config.members.grid={}"], "config.members.grid: is now config.sweep.grid"),
    ([DIGITS, "--config.members.sed=3"], "config.members.sed: no such key"),
    ([DIGITS, "--config.train.epochs=abc"], "--config.train.epochs=abc: is not a whole number"),
    ([DIGITS, "--config.train.epochs=2.5"], "--config.train.epochs=2.5: is not a whole number"),
    ([DIGITS, "--config.train.epochs"], "--config.train.epochs: expected one argument"),
    ([DIGITS, "--config.optim.learning_rate=fast"], "learning_rate=fast: is not a number"),
    ([DIGITS, "--config.data.offline_fallback=maybe"], "=maybe: is not true or false"),
    ([f"{MLP}:digits", "--config.model.widths=(1,2"], "=(1,2: is not a tuple such as 64,32"),
    ([f"{MLP}:digits", "--config.model.widths=wide"], "=wide: is not a tuple such as 64,32"),
    ([f"{MLP}:digits", "--config.model.widths='a'"], "'a' is not a whole number of 1 or more"),
    ([f"{MLP}:digits", "--config.model.dropout=.1,.2,.3"], "3 values for 2 widths"),
    ([f"{MLP}:digits", "--config.model.dropout=1.0"], "1.0 is not a rate in [0, 1)"),
    ([f"{MLP}:digits", "--config.model.activation=rellu"], "no 'rellu'; there are relu,"),
    ([f"{CNN}:digits", "--config.model.batch_norm=perhaps"], "=perhaps: is not true or false"),
    ([DIGITS, "--config.model.widths=64"], "model 'linear' has no such field"),
    ([DIGITS, "--config.model.name=mpl"], "did you mean 'mlp'?"),
    ([DIGITS, "--config.optim.name=adma"], "did you mean 'adam'?"),
    ([DIGITS, "--config.optim.schedule=cosin"], "did you mean 'cosine'?"),
    ([DIGITS, "--config.optim.schedule=plateau", "--config.data.val_size=0"], "'plateau' watches"),
    ([DIGITS, "--config.train.batch_size=0"], "config.train.batch_size: 0 is impossible"),
    ([DIGITS, "--config.optim.learning_rate=-1"], "config.optim.learning_rate: -1.0 is impossible"),
    ([DIGITS, "--config.data.val_size=-1"], "config.data.val_size: -1.0 is impossible"),
    ([DIGITS, "--config.data.val_size=1437"], "leaves nothing of 1437 examples to train on"),
    ([DIGITS, "--config.train.batch_size=1294"], "1294 is more than the 1,293 training examples"),
    ([f"{LINEAR}:digts"], "unknown data set 'digts': did you mean 'digits'?"),
    ([f"{LINEAR}:fashon_mnist"], "did you mean 'fashion_mnist'?"),
    ([DIGITS, "--config.data.name=minst"], "did you mean 'mnist'?"),
    ([f"{LINEAR}:nosuchset", "--summary"], "unknown data set 'nosuchset'"),
    ([f"{LINEAR}:csv:nothing.csv"], "nothing.csv: cannot be read as CSV"),
    (["--config=nothing.py"], "--config=nothing.py: no such file"),
    (["--config=."], "--config=.: no such file"),
    (["--config="], "--config=configs/cnn.py: is needed to train; see --help"),
    ([], "--config=configs/cnn.py: is needed to train; see --help"),
    (["--workdir=new"], "--config=configs/cnn.py: is needed to train; see --help"),
    (["--config.train.epochs=3"], "overrides a config; give --config=configs/cnn.py too"),
    (["--noconfig.data.offline_fallback"], "overrides a config; give --config=configs/cnn.py too"),
    ([DIGITS, "--workdri=new"], "--workdri: no such flag; did you mean --workdir?"),
    ([DIGITS, "--xyzzy"], "--xyzzy: no such flag; see --help"),
    ([DIGITS, "--noconfig.train.epochs"], "--noconfig.train.epochs: no such flag"),
    ([DIGITS, "stray"], "stray: unexpected argument; flags are --NAME=VALUE, see --help"),
    ([DIGITS, "--", "stray"], "stray: unexpected argument"),
    (["stray", DIGITS], "stray: unexpected argument"),
    (["--help", "stray"], "stray: unexpected argument"),
    ([DIGITS, "--mode=tain"], "--mode: invalid choice: 'tain' (choose from "),
    ([DIGITS, "--split=tset"], "--split: invalid choice: 'tset' (choose from "),
    ([DIGITS, "--summary", "stray"], "stray: unexpected argument"),
    ([DIGITS, "--overwrite=perhaps"], "--overwrite=perhaps: is not true or false"),
    ([DIGITS, "--workdir"], "--workdir: expected one argument; see --help"),
    ([DIGITS, "--flagfile=nothing"], "--flagfile: no such flag"),
    ([DIGITS, "--workdir=../file"], "../file: cannot write there (Not a directory)"),
    ([DIGITS, "--workdir=../file/new"], "../file/new: cannot write there (Not a directory)"),
    ([DIGITS, "--workdir=..", "--overwrite"], "..: holds files but no run; give another --workdir"),
    (["--mode=evaluate"], "--workdir=runs/NAME: is needed to evaluate; see --help"),
    (["--mode=evaluate", "--workdir=new"], "new: there is no run"),
    (["--mode=evaluate", "--workdir=../file"], "../file: there is no run"),
    (["--mode=evaluate", "--workdir=.."], "..: there is no run"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "complaint"), MISTAKES, ids=[x[-1][:40] for x in MISTAKES])
def test_a_mistake_is_told_in_one_line_and_leaves_nothing(here, capsys, args, complaint):
    (here.parent / "file").write_text("mine")
    before = content(here.parent)
    assert complaint in refusal(capsys, *args)
    assert content(here.parent) == before
    assert list(here.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("x = 1\n", "has no get_config() that returns a ConfigDict"),
        ("def get_config(dataset): return {'seed': 1}\n", "has no get_config() that returns"),
        ("def get_config(dataset): pass\n", "has no get_config() that returns"),
        ("def get_config(): pass\n", "mine.py: TypeError: get_config() takes 0 positional"),
        ("def get_config(:\n", "mine.py: SyntaxError: invalid syntax (mine.py, line 1)"),
        ("import nosuchmodule\n", "mine.py:1: ModuleNotFoundError: No module named"),
        ("\ndef get_config(dataset):\n  return 1 / 0\n", "mine.py:3: ZeroDivisionError: "),
        ("def get_config(d):\n  raise OSError('two\\nlines')\n", "mine.py:2: OSError: two lines"),
        ("c.train.epocs = 3", "config.train.epocs: no such key; did you mean config.train.epochs?"),
        ("c.train.epochs = 0", "config.train.epochs: 0 is impossible"),
        ("c.train.epochs = 'ten'", "mine.py:4: TypeError: "),
        ("del c.optim", "config.optim.b1: is missing; start from mnist_jax.config.default()"),
    ],
)
def test_a_mistake_in_a_config_file_is_told_in_one_line(here, capsys, source, complaint):
    if "c." in source:
        source = (
            "from mnist_jax import config\ndef get_config(dataset):\n"
            f"  c = config.default()\n  {source}\n  return c\n"
        )
    (here / "mine.py").write_text(source)
    assert complaint in refusal(capsys, "--config=mine.py:digits")
    assert [file.name for file in here.iterdir()] == ["mine.py"]


def test_a_config_file_without_data_set_gets_none(here, capsys):
    """Then its own default counts, and it need not take any."""
    (here / "mine.py").write_text(
        "from mnist_jax import config\ndef get_config():\n  return config.default()\n"
    )
    assert flags.parse(["--config=mine.py"]).config.data.name == "mnist"


def test_where_the_data_cannot_be_had_it_gets_another_set_all_the_same(here):
    (here / "mine.py").write_text(
        "from mnist_jax import config\ndef get_config():\n  return config.default()\n"
    )
    assert flags.parse(["--config=mine.py"], dataset="digits").config.data.name == "digits"


def test_a_tilde_is_the_home_directory(monkeypatch):
    """A shell leaves it alone after an equals sign."""
    monkeypatch.setenv("HOME", "/home/me")
    found = flags.parse([DIGITS, "--workdir=~/a", "--compilation_cache=~/b"])
    assert (found.workdir, found.compilation_cache) == (Path("/home/me/a"), "/home/me/b")
    assert flags.parse([DIGITS, "--compilation_cache=off"]).compilation_cache == "off"


def test_a_missing_config_is_answered_with_the_shipped_ones(here):
    with pytest.raises(UserError, match=r"configs/liner\.py: no such file; there are .*linear\.py"):
        flags.parse(["--config=configs/liner.py"])


def test_shipped_configs_are_found_from_any_directory(here):
    """A file of the working directory comes first, whatever its name."""
    assert flags.parse(["--config=configs/linear.py:digits"]).config.model.name == "linear"
    (here / "configs").mkdir()
    text = (ROOT / "configs/mlp.py").read_text()
    (here / "configs/linear.py").write_text(text)
    assert flags.parse(["--config=configs/linear.py:digits"]).config.model.name == "mlp"
    for path in ("cnn.py", "other/cnn.py", "config.py"):
        with pytest.raises(UserError, match="no such file"):
            flags.parse([f"--config={path}"])


@pytest.mark.parametrize("error", [RuntimeError("ours"), KeyError("ours"), OSError("ours")])
def test_a_crash_that_is_ours_is_no_mistake_of_the_users(here, monkeypatch, error):
    def crash(options):
        raise error

    monkeypatch.setattr(commands, "train", crash)
    with pytest.raises(type(error), match="ours"):
        main.main([DIGITS])
