"""The commands, as a person meets them: what they print and leave behind."""

import json
import os
import re
import shlex
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from shell import CNN, DIGITS, LINEAR, MLP, STUDY, content, refusal, typed
from tiny_runs import with_pages

from mnist_jax import main
from mnist_jax.cli import commands, flags
from mnist_jax.compare import __main__ as compare
from mnist_jax.data import splits
from mnist_jax.runs import training
from mnist_jax.runtime import progress
from mnist_jax.types import UserError


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run of two epochs on digits; not to be changed."""
    folder = tmp_path_factory.mktemp("cli")
    done = typed(DIGITS, "--config.train.epochs=2", "--workdir=run", cwd=folder)
    (folder / "out").write_text(done.stdout)
    (folder / "err").write_text(done.stderr)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def read(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


# Summary


@pytest.mark.parametrize(
    ("args", "kinds", "total"),
    [
        ([LINEAR], ["Dense"], 7_850),
        ([MLP], ["Dense"] * 3, 535_818),
        ([CNN], ["Conv", "BatchNorm", "Conv", "BatchNorm", "Dense", "Dense"], 824_554),
        ([LINEAR, "--config.task.name=binary"], ["Dense"], 785),
        ([f"{STUDY}:mlp_512"], ["Dense"] * 2, 407_050),
        ([f"{STUDY}:cnn_2x2_32,mnist"], ["Conv", "Dense", "Dense"], 1_387_434),
    ],
    ids=["linear", "mlp", "cnn", "binary", "mlp_512", "cnn_2x2_32"],
)
def test_summary_prints_the_layers_and_their_total(here, no_data, capsys, args, kinds, total):
    assert main.main([*args, "--summary"]) == 0
    out, err = capsys.readouterr()
    title, _, header, *rows, last = out.splitlines()
    assert title.endswith(" on 28x28x1, one image forward:")
    assert header.split() == ["layer", "kind", "output", "parameters", "FLOPs"]
    assert [row.split()[1] for row in rows] == kinds
    numbers = [[int(cell.replace(",", "")) for cell in row.split()[-2:]] for row in (*rows, last)]
    *each, (params, flops) = numbers
    assert params == sum(row[0] for row in each) == total
    assert flops == sum(row[1] for row in each) > 0
    assert err == ""
    assert list(here.parent.iterdir()) == [here]  # no data was needed, and none was looked for


# A run


def test_a_run_tells_its_epochs_and_its_result(finished):
    out = (finished.parent / "out").read_text().splitlines()
    summary = read(finished)
    assert out[0] == "linear on digits: 1,293 train, 144 val, 360 test"
    assert [line.split()[:2] for line in out[1:3]] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert len(out) == 4
    assert out[3].startswith(
        f"digits: test accuracy {100 * summary['test_accuracy']:.2f}%  "
        f"({summary['test_errors']} errors of 360)  trained in "
    )
    assert out[3].endswith("report: run/report.html")
    assert (finished.parent / "err").read_text() == ""


def test_a_finished_run_is_not_trained_again(finished, capsys, monkeypatch):
    before = content(finished)
    monkeypatch.chdir(finished.parent)
    # Where the data is now makes no other run of it.
    elsewhere = ["--config.data.archives=/else/where", "--config.data.data_dir=/else/where"]
    assert main.main([DIGITS, "--config.train.epochs=2", "--workdir=run", *elsewhere]) == 0
    told, headline = capsys.readouterr().out.splitlines()
    assert told == "run: is finished; --overwrite starts it again"
    assert headline == (finished.parent / "out").read_text().splitlines()[-1]
    assert content(finished) == before


def test_a_run_of_another_config_is_refused(finished, capsys):
    before = content(finished)
    changes = ["--config.train.epochs=3", "--config.optim.learning_rate=0.5"]
    message = refusal(capsys, DIGITS, *changes, f"--workdir={finished}")
    differing = "config.optim.learning_rate, config.train.epochs"
    assert f"{finished}: holds another run, which differs in {differing}; " in message
    assert content(finished) == before


def test_overwrite_starts_anew(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    options = [DIGITS, "--config.train.epochs=1", "--config.seed=1", f"--workdir={copy}"]
    assert main.main([*options, "--overwrite"]) == 0
    assert (read(copy)["seed"], read(copy)["best_epoch"]) == (1, 1)
    assert len((copy / "metrics.jsonl").read_text().splitlines()) == 1


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("digits", "cnn-digits-s5"),
        ("csv:/some/where/train.v2.csv.gz", "cnn-csv-train-s5"),
        ("csv:train.csv", "cnn-csv-train-s5"),
        ("csv:./some/../train.csv", "cnn-csv-train-s5"),
        ("images:some/shapes/", "cnn-images-shapes-s5"),
        ("emnist/letters", "cnn-emnist-letters-s5"),
    ],
)
def test_the_name_of_a_run_says_what_it_is(here, monkeypatch, dataset, name):
    places = []

    none = splits.Split(np.zeros((0, 28, 28, 1), np.uint8), np.zeros(0, np.int32))
    examples = splits.Splits(dataset, (), "", none, none, none)

    def run(config, examples, workdir, **_):
        places.append(workdir)
        raise UserError("that is all we want to know")

    monkeypatch.setattr(commands.splits, "load", lambda config, log: examples)
    monkeypatch.setattr(training, "train_run", run)
    assert main.main([f"{CNN}:{dataset}", "--config.seed=5"]) == 2
    assert places == [Path("runs", name)]


@pytest.mark.parametrize(
    ("argv", "name"),
    [
        ([], "linear-digits-s0"),
        # Other values than those of configs/linear.py:digits.
        (["--config.data.name=digits"], "linear-digits-s0-data-digits"),
        (["--config.data.name=csv:./some/../t.csv"], "linear-digits-s0-data-csv-t"),
        (["--config.seed=2", "--config.data.archives=there"], "linear-digits-s2"),
        (["--config.task.name=binary", "--config.task.loss=hinge"],
         "linear-digits-s0-task-binary-loss-hinge"),
        (["--config.model.name=mlp", "--config.model.widths=64,32"],
         "linear-digits-s0-model-mlp-widths-64x32"),
        (["--config.train.epochs=3", "--config.train.epochs=4"], "linear-digits-s0-epochs-4"),
        (["--config.sweep.seeds=3"], "linear-digits-s0-3-trials"),
        (["--config.train.augment=mild"], "linear-digits-s0-augment-mild"),
        (["--config.sweep.folds=4"], "linear-digits-s0-folds-4-4-trials"),
        (["--config.sweep.folds=4", "--config.sweep.share_batches"],
         "linear-digits-s0-nyof-4-trials"),
    ],
)  # fmt: skip
def test_a_run_is_named_after_what_its_command_overrides(argv, name):
    assert commands.run_name(flags.parse([DIGITS, *argv]), "digits") == name


def test_names_are_short_and_stay_apart():
    rates = '{"optim.learning_rate": [1e-3, 3e-3, 1e-2], "optim.weight_decay": [0, %s]}'
    grids = (rates % decay for decay in (1, 2))
    one, other = (
        commands.run_name(flags.parse([DIGITS, f"--config.sweep.grid={grid}"]), "digits")
        for grid in grids
    )
    assert one != other
    for name in (one, other):
        assert re.fullmatch(r"linear-digits-s0-[a-z]{4}-6-trials", name)
    names = {
        commands.run_name(flags.parse([DIGITS, *argv]), "digits")
        for argv in (
            ["--config.model.name=mlp", "--config.model.widths=64,32"],
            ["--config.model.name=mlp", "--config.model.widths=6432"],
            ["--config.task.name=binary", "--config.task.positive=3,1"],
            ["--config.task.name=binary", "--config.task.positive=31"],
            ["--config.task.name=one_vs_one", "--config.task.loss=hinge"],
            ["--config.data.archives=[x]", "--config.optim.learning_rate=1e-05"],
        )
    }
    assert len(names) == 6
    assert all(re.fullmatch(r"[a-zA-Z0-9_.-]{1,45}", name) for name in names)


def test_a_data_sets_file_of_any_name_makes_a_name_to_type():
    assert commands.run_name(flags.parse([DIGITS]), f"csv:{ODD}") == "linear-csv-d-31m-s0"


def test_a_name_is_a_directory_in_runs(here, capsys):
    assert flags.parse([DIGITS, "--name=first"]).workdir == Path("runs", "first")
    assert flags.parse(["--mode=evaluate", "--name=first"]).workdir == Path("runs", "first")
    for name in ("a/b", "/a", "..", ".", "", "a/"):
        assert "is not the name of a directory" in refusal(capsys, DIGITS, f"--name={name}")
    assert "drop it or --workdir" in refusal(capsys, DIGITS, "--name=a", "--workdir=b")
    assert list(here.iterdir()) == []


def test_a_run_without_validation(here, capsys):
    options = ["--config.train.epochs=1", "--config.data.val_size=0", "--config.seed=3"]
    name = "linear-digits-s3-epochs-1-val_size-0.0"
    assert main.main([DIGITS, *options]) == 0
    assert [path.name for path in (here / "runs").iterdir()] == [name]
    summary = read(here / "runs" / name)
    assert (summary["val_accuracy"], summary["num_val"]) == (None, 0)
    assert summary["num_train"] == 1437
    assert "val" not in capsys.readouterr().out.replace(name, "")
    evaluate = ["--mode=evaluate", f"--workdir=runs/{name}", "--split=val"]
    assert "has no val examples" in refusal(capsys, *evaluate)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_says_how_to_go_on(here, monkeypatch, capsys, signum):
    def run(*_, **__):
        raise progress.Stopped(signum, 1, 2)

    monkeypatch.setattr(training, "train_run", run)
    # What starts anew would not go on.
    assert main.main([DIGITS, "--overwrite", "--workdir=a b"]) == 128 + signum
    out, err = capsys.readouterr()
    saved, command = out.splitlines()
    assert saved == "stopped after epoch 1 of 2, which is saved; to resume:"
    started = shlex.join(commands.program())
    assert command == f"  {started} {DIGITS} '--workdir=a b'"
    assert err == ""


def test_a_run_that_is_stopped_at_once_is_no_crash(here, monkeypatch, capsys):
    def run(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train_run", run)
    assert main.main([DIGITS]) == 130
    assert capsys.readouterr().err.count("\n") == 1


ODD = os.fsdecode(b"d\xe9\x1b[31m\n\x07")  # not UTF-8, an escape sequence, control characters


def write_csv(path: Path, count: int) -> None:
    """Write images of noise."""
    rows = np.random.default_rng(0).integers(0, 256, (count, 785))
    rows[:, 0] = np.arange(count) % 10
    header = ",".join(["label", *(f"pixel{i}" for i in range(784))])
    with path.open("wb") as file:
        np.savetxt(file, rows, "%d", ",", header=header, comments="")


def assert_printable(capsys) -> str:
    """Return what was printed, and check that nothing in it moves the cursor or the encoder."""
    out, err = capsys.readouterr()
    for line in (out + err).split("\n"):
        assert line.isprintable(), ascii(line)
        line.encode()
    return out


@with_pages()
def test_names_that_cannot_be_printed(here, capsys):
    """They crashed finished trainings and `compare`, and reached the terminal."""
    write_csv(here / f"{ODD}.csv", 200)
    options = [f"{LINEAR}:csv:{ODD}.csv", "--config.train.epochs=1", "--config.train.batch_size=8"]
    run = "run\x1b[31m\n"
    assert main.main([*options, f"--workdir={run}"]) == 0
    assert "csv:d\N{REPLACEMENT CHARACTER}" in assert_printable(capsys)
    summary = (here / run / "summary.json").read_text()
    assert json.loads(summary)["dataset"].isprintable()
    page = (here / run / "report.html").read_bytes().decode()
    assert not set(page) & {"\x1b", "\x07"}
    assert main.main([*options, f"--workdir={run}"]) == 0  # the same data and directory again
    assert main.main(["--mode=evaluate", f"--workdir={run}"]) == 0
    assert compare.main([run, run]) == 0
    assert_printable(capsys)
    assert "\x1b" not in (here / "compare.html").read_text()
    assert main.main([*options, "--config.seed=1", f"--workdir={run}"]) == 2
    assert main.main([f"--config={ODD}.py"]) == 2
    assert compare.main([ODD, ODD]) == 2
    assert assert_printable(capsys) == ""


# No data


def assert_fallen_back(run: Path, out: str, err: str) -> None:
    banners = [line for line in err.splitlines() if "***" in line]
    assert banners == ["*** NOT mnist: training on scikit-learn's small 'digits' instead ***"]
    assert "Traceback" not in err
    assert out.splitlines()[-1].startswith("digits (NOT mnist): test accuracy ")
    summary = read(run)
    assert (summary["dataset"], summary["requested_dataset"]) == ("digits", "mnist")
    assert summary["num_test"] == 360
    page = (run / "report.html").read_text()
    assert 'role="alert"' in page
    assert "This run did not use mnist." in page


@with_pages()
def test_without_data_a_shipped_config_trains_on_digits_and_says_so(here, no_data):
    done = typed(LINEAR, "--config.train.epochs=1", cwd=here, **no_data)
    assert done.returncode == 0, done.stderr
    # A run of digits that is wanted is another one.
    run = here / "runs" / "linear-digits-not-mnist-s0-epochs-1"
    assert_fallen_back(run, done.stdout, done.stderr)


@with_pages()
def test_so_it_does_for_a_data_set_that_was_typed(here, no_data, capsys):
    options = ["--config.data.name=mnist", "--config.train.epochs=1", "--workdir=mine"]
    assert main.main([LINEAR, *options]) == 0
    assert_fallen_back(here / "mine", *capsys.readouterr())
    # The values are those for digits, except for the one that was typed.
    stored = json.loads((here / "mine" / "config.json").read_text())
    assert stored["data"]["name"] == "digits"
    assert stored["optim"]["learning_rate"] == flags.parse([DIGITS]).config.optim.learning_rate
    assert stored["train"]["epochs"] == 1


def test_without_data_and_fallback_it_is_a_mistake(here, no_data):
    done = typed(LINEAR, "--noconfig.data.offline_fallback", cwd=here, **no_data)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: mnist: there is no prepared copy in .+\n", done.stderr)
    assert "--config.data.archives or $MNIST_JAX_ARCHIVES" in done.stderr
    assert list(here.iterdir()) == []
    assert not Path(no_data["TFDS_DATA_DIR"]).exists()


# Evaluation


def evaluated(capsys, run: Path, split: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The numbers of the first line, and the rows of the table by class."""
    assert main.main(["--mode=evaluate", f"--workdir={run}", f"--split={split}"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    first, _, header, *rows = out.splitlines()
    assert header.split() == ["class", "precision", "recall", "f1", "support"]
    pattern = (
        rf"{re.escape(str(run))}: epoch (?P<epoch>\d+) on the {split} split of digits: "
        r"accuracy (?P<accuracy>[\d.]+)%  errors (?P<errors>[\d,]+) of (?P<total>[\d,]+)  "
        r"loss (?P<loss>[\d.]+)  "
        r"top-2 (?P<top2>[\d.]+)%  calibration error (?P<ece>[\d.]+)"
    )
    match = re.fullmatch(pattern, first)
    assert match, first
    cells = [re.split(r"\s\s+", row) for row in rows]
    return match.groupdict(), {name: numbers for name, *numbers in cells}


def test_evaluation_on_the_test_split_is_what_the_run_says_of_itself(finished, capsys):
    before = content(finished)
    summary = read(finished)
    line, table = evaluated(capsys, finished, "test")
    assert line == {
        "epoch": f"{summary['best_epoch']}",
        "accuracy": f"{100 * summary['test_accuracy']:.2f}",
        "errors": f"{summary['test_errors']}",
        "total": "360",
        "loss": f"{summary['test_loss']:.4f}",
        "top2": f"{100 * summary['test_top2_accuracy']:.2f}",
        "ece": f"{summary['ece']:.4f}",
    }
    rows = {row["name"]: row for row in summary["per_class"]}
    rows |= {f"{key} average": {**summary[key], "support": 360} for key in ("macro", "weighted")}
    assert list(table) == list(rows)
    for name, row in rows.items():
        scores = [f"{row[key]:.4f}" for key in ("precision", "recall", "f1")]
        assert table[name] == [*scores, f"{row['support']}"]
    assert content(finished) == before


def test_evaluation_on_the_validation_split_is_what_chose_the_epoch(finished, capsys):
    line, table = evaluated(capsys, finished, "val")
    assert line["accuracy"] == f"{100 * read(finished)['val_accuracy']:.2f}"
    assert line["total"] == table["macro average"][-1] == "144"


def test_evaluation_on_the_training_split_counts_all_of_it(finished, capsys):
    line, table = evaluated(capsys, finished, "train")
    assert line["total"] == "1,293"
    assert sum(int(table[name][-1]) for name in "0123456789") == 1293


def test_evaluation_in_a_process_of_its_own(finished):
    done = typed("--mode=evaluate", "--workdir=run", cwd=finished.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"accuracy {100 * read(finished)['test_accuracy']:.2f}%" in done.stdout


def test_evaluation_of_a_sweep_is_of_the_trials_of_its_chosen_setting(here, capsys):
    sweep = [
        "--config.sweep.seeds=2",
        '--config.sweep.grid={"optim.learning_rate": [1e-4, 0.01]}',
    ]
    assert main.main([DIGITS, "--config.train.epochs=2", *sweep, "--workdir=run"]) == 0
    headline = capsys.readouterr().out.splitlines()[-1]
    summary = read(here / "run")
    accuracy = summary["test"]["accuracy"]
    assert (
        f"{100 * accuracy['mean']:.2f}% ± {100 * accuracy['sd']:.2f}  (mean ± sd of 2 t" in headline
    )
    before = content(here / "run")
    assert main.main(["--mode=evaluate", "--workdir=run"]) == 0
    first, _, _, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "run: mean of 2 trials on the test split of digits: "
        f"accuracy {100 * accuracy['mean']:.2f}%  errors {summary['test_errors']:,.5g} of 360  "
    )
    for line, row in zip(rows, summary["per_class"], strict=False):
        assert line.split()[:2] == [row["name"], f"{row['precision']:.4f}"]
    assert content(here / "run") == before


CROSS_VALIDATED = {
    "dataset": "digits",
    "requested_dataset": "digits",
    "score": "accuracy",
    "test_accuracy": 0.95,
    "trials": 5,
    "folds": 5,
    "chosen": 1,
    "settings": [{}, {"val_score": {"mean": 0.9412, "sd": 0.0063}}],
    "nested": None,
    "test": {"accuracy": {"sd": None, "n": 1}},
    "train_seconds": 12.34,
}


def test_the_last_line_of_a_cross_validation_is_its_mean_and_then_the_refit():
    end = "  refit: test accuracy 95.00%  trained in 12.3 s  report: run/report.html"
    assert commands.headline(CROSS_VALIDATED, Path("run")) == (
        f"digits: accuracy 94.12% ± 0.63  (mean ± sd of 5 held-out folds){end}"
    )
    nested = {"score": {"mean": 0.93, "sd": 0.01}, "folds": [{}, {}, {}]}
    assert commands.headline({**CROSS_VALIDATED, "nested": nested}, Path("run")) == (
        f"digits: accuracy 93.00% ± 1.00  (mean ± sd of 3 outer folds, nested){end}"
    )
    denoised = {"score": "psnr", "test_accuracy": None, "test_psnr": 21.0, "test_ssim": 0.5}
    folds = {"val_score": {"mean": 20.5, "sd": 0.25}}
    line = commands.headline({**CROSS_VALIDATED, **denoised, "settings": [{}, folds]}, Path("run"))
    assert line.startswith("digits: psnr 20.50 dB ± 0.25  (mean ± sd of 5 held-out folds)  refit: ")


def test_evaluation_on_other_data_is_refused(finished, tmp_path, capsys):
    copy = shutil.copytree(finished, tmp_path / "copy")
    stored = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**stored, "data_fingerprint": "another"}))
    message = refusal(capsys, "--mode=evaluate", f"--workdir={copy}")
    assert "was trained on other data than the digits found here" in message


def test_evaluation_on_the_data_that_is_asked_for(finished, tmp_path, capsys):
    path = tmp_path / "mine.csv"
    write_csv(path, 80)  # too few to validate
    count = 16
    before = content(finished)
    lines = []
    for asked in ([f"--config.data.name=csv:{path}"], [f"{LINEAR}:csv:{path}"]):
        assert main.main(["--mode=evaluate", f"--workdir={finished}", *asked]) == 0
        lines.append(capsys.readouterr().out.splitlines()[0])
    assert lines[0] == lines[1]
    told = rf"on the test split of csv:{re.escape(str(path))}: accuracy (.*)%  errors .* of "
    accuracy = float(re.search(told + f"{count}  ", lines[0])[1])
    assert accuracy < 100 * read(finished)["test_accuracy"]
    assert content(finished) == before


def test_evaluation_on_data_of_other_classes_is_refused(finished, tmp_path, capsys):
    copy = shutil.copytree(finished, tmp_path / "copy")
    names = [*read(copy)["class_names"], "eleven"]
    (copy / "summary.json").write_text(json.dumps(read(copy) | {"class_names": names}))
    message = refusal(capsys, "--mode=evaluate", f"--workdir={copy}", DIGITS)
    assert message.startswith(f"digits: has 10 classes, but {copy} was trained to tell 11 apart")


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--overwrite", "--overwrite"),
        ("--summary", "--summary"),
        ("--config.train.epochs=3", "--config.train.epochs"),
        ("--config.data.val_size=0.3", "--config.data.val_size"),
        ("--noconfig.data.offline_fallback", "--config.data.offline_fallback"),
    ],
)
@pytest.mark.parametrize("config", [[], [DIGITS]])
def test_evaluation_refuses_what_it_would_ignore(finished, capsys, flag, named, config):
    before = content(finished)
    message = refusal(capsys, "--mode=evaluate", f"--workdir={finished}", *config, flag)
    assert message.startswith(f"{named}: has no effect with --mode=evaluate")
    assert content(finished) == before


def test_training_refuses_a_split(here, capsys):
    assert refusal(capsys, DIGITS, "--split=val").startswith("--split: has no effect")
    assert list(here.iterdir()) == []


def test_evaluation_before_the_first_epoch_is_refused(finished, tmp_path, capsys):
    shutil.copy(finished / "config.json", tmp_path / "config.json")
    assert "has no checkpoint yet" in refusal(capsys, "--mode=evaluate", f"--workdir={tmp_path}")
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
