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

from mnist_jax import config as configs
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


@pytest.mark.parametrize("argv", [[], [DIGITS], [f"{CNN}:digits"], [f"{MLP}:digits"]])
def test_help_explains_every_key_in_80_columns(capsys, argv):
    assert main.main([*argv, "--help"]) == 0
    out, _ = capsys.readouterr()
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    shown = dict(re.findall(r"^  --config\.([\w.]+)=(.*)$", out.split("at once.")[1], re.MULTILINE))
    assert shown.keys() == configs.OPTIONS.keys()
    text = " ".join(out.split())
    for option in configs.OPTIONS.values():
        assert " ".join(option.help.split()) in text
        if option.allowed and not isinstance(option.allowed, str):
            assert configs.describe(option.allowed) in text
    if not argv:  # the defaults, also of keys that another component reads
        assert (shown["train.epochs"], shown["optim.b1"], shown["optim.momentum"]) == (
            "10",
            "0.9",
            "0.9",
        )
        assert (shown["model.widths"], shown["task.positive"]) == ("512,256", "5")
        assert (shown["train.augment.fill"], shown["sweep.samples"]) == ("nearest", "10")
    if argv == [f"{CNN}:digits"]:
        assert (shown["model.widths"], shown["train.epochs"]) == ("256", "30")
        assert "passes over the training examples; 1 or more; default: 10" in text


def test_help_says_which_components_read_a_key(capsys):
    assert main.main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "decay of the gradient's average; 0 or more and below 1; of adam or adamw " in text


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
        (["--config.sweep.share_batches", "--config.sweep.seeds=2"], "sweep.share_batches", True),
        (["--config.model.dropout=None"], "model.dropout", None),
        (["--config.data.archives=None"], "data.archives", None),
        (["--config.train.augment=none"], "train.augment.shift", 0.0),
        (["--config.train.augment=mild"], "train.augment.shift", 0.1),
        (["--config.train.augment", "mild"], "train.augment.shift", 0.1),
        (
            ["--config.train.augment=mild", "--config.train.augment.shift=.3"],
            "train.augment.shift",
            0.3,
        ),
        (
            ["--config.train.augment.shift=.3", "--config.train.augment=none"],
            "train.augment.shift",
            0.3,
        ),
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


def test_augmentation_is_off_with_one_flag():
    fields = flags.parse([f"{CNN}:digits", "--config.train.augment=none"]).config.train.augment
    assert not any(value for key, value in fields.items() if key != "fill")


@pytest.mark.parametrize(
    ("line", "effect"),
    [
        ("c.train.augment = 'strong'", 20.0),
        ("c.train.augment.rotation = 3.0; c.train.augment = 'none'", 0.0),
        ("c.train.augment = 'mild'; c.train.augment.rotation = 3.0", 3.0),
        ("c.train.augment = 'midl'", "config.train.augment: no 'midl'; there are none, mild, str"),
        ("c.train.augment = None", "config.train.augment: no 'None'; there are none, mild"),
    ],
)
def test_a_config_file_may_name_a_preset_of_augmentation(here, line, effect):
    (here / "mine.py").write_text(
        "from mnist_jax import config\ndef get_config():\n"
        f"  c = config.default()\n  {line}\n  return c\n"
    )
    if isinstance(effect, str):
        with pytest.raises(UserError, match=f"^{effect}"):
            flags.parse(["--config=mine.py"])
    else:
        assert flags.parse(["--config=mine.py"]).config.train.augment.rotation == effect


def test_keys_of_a_component_that_the_command_line_replaces_are_dropped(here):
    """As `configs/mlp.py` sets a dropout that a linear model has not."""
    assert flags.parse([f"{MLP}:digits"]).config.model.dropout == (0.2,)
    replaced = flags.parse([f"{MLP}:digits", "--config.model.name=linear"]).config
    assert replaced.model.dropout is None
    (here / "mine.py").write_text(
        "from mnist_jax import config\ndef get_config():\n"
        "  c = config.default()\n  c.optim.b1 = 0.8\n  return c\n"
    )
    assert flags.parse(["--config=mine.py"]).config.optim.b1 == 0.8
    assert flags.parse(["--config=mine.py", "--config.optim.name=sgd"]).config.optim.b1 is None
    with pytest.raises(UserError, match=r"^config\.optim\.b1: sgd does not use it"):
        flags.parse(["--config=mine.py", "--config.optim.name=sgd", "--config.optim.b1=.8"])


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
    ([DIGITS, "--config.optim.lr=3"], "optim.lr: no such key; did you mean config.optim.learn"),
    ([DIGITS, "--config.optim.wd=3"], "did you mean config.optim.weight_decay?"),
    ([DIGITS, "--epochs=3"], "--epochs: no such flag; did you mean --config.train.epochs=3?"),
    (["--epochs=3"], "--epochs: no such flag; did you mean --config.train.epochs=3?"),
    ([DIGITS, "--batch-size=3"], "did you mean --config.train.batch_size=3?"),
    ([DIGITS, "--train.epochs=3"], "did you mean --config.train.epochs=3?"),
    ([DIGITS, "--lr", ".1"], "--lr: no such flag; did you mean --config.optim.learning_rate?"),
    ([DIGITS, "--model=cnn"], "--model: no such flag; did you mean --config.model.name=cnn?"),
    ([DIGITS, "--mode=summary"], "--mode=summary: no such mode; did you mean --summary?"),
    ([DIGITS, "--mode", "summary"], "--mode=summary: no such mode; did you mean --summary?"),
    (["--config=cnn.py"], "no such file; did you mean --config=configs/cnn.py?"),
    (["--config=configs/cnn"], "no such file; did you mean --config=configs/cnn.py?"),
    (["--config=cnn.py:digits"], "no such file; did you mean --config=configs/cnn.py:digits?"),
    ([DIGITS, "--config.train.class_weights=1,2"], "2 weights for 10 classes; give one for each"),
    ([DIGITS, "--config.train.class_weights=even"], "'even' is not 'balanced', nor a number above"),
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
    ([DIGITS, "--config.model.widths=64"], "model.widths: linear does not use it; mlp and cnn do"),
    ([DIGITS, "--config.optim.momentum=.8"], "optim.momentum: adam does not use it; momentum does"),
    ([DIGITS, "--config.sweep.samples=3"], "sweep.samples: only config.sweep.random uses it"),
    ([DIGITS, "--config.task.positive=3"], "multiclass does not use it; binary does"),
    ([DIGITS, "--config.train.augment=midl"], "no 'midl'; there are none, mild, strong; did you"),
    ([DIGITS, "--config.train.epochs=None"], "--config.train.epochs=None: is not a whole number"),
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
        ("c.train.epochs = None", "config.train.epochs: None is not a whole number"),
        ("c.train.epochs = True", "config.train.epochs: True is not a whole number"),
        ("c.optim.learning_rate = None", "config.optim.learning_rate: None is not a number"),
        (
            "c.optim.learning_rate = True",
            "mine.py:4: TypeError: learning_rate: True is not a number",
        ),
        ("c.optim.update(b1=False)", "mine.py:4: TypeError: b1: False is not a number"),
        ("c.data.name = None", "config.data.name: None is not text"),
        ("c.optim = None", "config.optim: no such key; it is a section, as in config.optim.b1"),
        ("c.train.augment.flip = None", "config.train.augment.flip: None is not a number"),
        ("c.optim.momentum = 0.8", "config.optim.momentum: adam does not use it; momentum does"),
        ("c.sweep.grid = {'train.epochs': [None]}", "None is not a value of config.train.epochs"),
        ("c.sweep.seeds = None", "config.sweep.seeds: None is not a whole number"),
        ("c.sweep.halving = None", "config.sweep.halving: None is not a tuple"),
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
