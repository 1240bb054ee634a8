"""Comparisons of several runs, and runs that cannot be compared."""

import json
import re
import shutil

import numpy as np
import pytest
from pages import Page, check_self_contained
from tiny_runs import compiled_in

from mnist_jax.analysis import stats
from mnist_jax.cli import flags
from mnist_jax.compare import __main__ as compare
from mnist_jax.compare import compare_page, compare_text, comparison
from mnist_jax.data import splits
from mnist_jax.report import formats, pictures
from mnist_jax.runs import training
from mnist_jax.types import UserError
from mnist_jax.workdir import files

MLP = "--config=configs/mlp.py:digits"
GRID = '--config.sweep.grid={"optim.learning_rate": [3e-3, 1e-3]}'


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Finished runs: a plain one, a worse one, and both over seeds."""
    folder = tmp_path_factory.mktemp("runs")
    base = [MLP, "--config.model.widths=(16,)", "--config.train.epochs=3"]
    poor, many = "--config.optim.learning_rate=1e-4", "--config.sweep.seeds=3"
    with compiled_in(folder / "compiled"):
        for name, argv in {
            "good": base,
            "poor": [*base, poor],
            "goods": [*base, many],
            "poors": [*base, many, poor],
            "folds": [*base, "--config.sweep.folds=2"],
            "chosen folds": [*base, "--config.sweep.folds=2", GRID],
            "swept": [*base, GRID],
        }.items():
            config = flags.parse(argv).config
            training.train_run(config, splits.load(config), folder / name, log=lambda line: None)
    return folder


def say(capsys, *argv):
    code = compare.main([str(arg) for arg in argv])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err


def test_two_trainings_by_mcnemar(folder, capsys):
    code, lines, err = say(capsys, folder / "good", folder / "poor")
    assert (code, err) == (0, "")
    assert lines[0].startswith(f"{folder}/good: test accuracy ")
    assert lines[2] == "  config.optim.learning_rate = 0.0001"
    right = []
    for name in ("good", "poor"):
        with np.load(folder / name / files.PREDICTIONS) as stored:
            right.append(stored["logits"].argmax(-1) == stored["labels"])
    points = 100 * (right[1].mean() - right[0].mean())
    assert lines[3].startswith(f"  worse ({points:+.2f} points): ")
    assert f"{(right[0] & ~right[1]).sum()} the other way round; McNemar's exact test" in lines[3]


def test_two_runs_over_seeds_by_pairs(folder, capsys):
    code, lines, _ = say(capsys, folder / "goods", folder / "poors")
    assert code == 0
    run = comparison.read(folder / "goods")
    seeds, both = comparison.accuracy(run), comparison.on_new_images(run)
    ends = [
        f"{formats.percent(low)} to {formats.percent(high)}" for low, high in (seeds[3:5], both)
    ]
    assert re.findall(r"\S+% to \d+\.\d+%", lines[0]) == ends
    assert "(n = 3; 95% interval for new seeds on these test images: " in lines[0]
    assert "; 95% interval for new seeds and new images: " in lines[0]
    assert both[0] < seeds.mean < both[1] <= 1
    assert lines[3].startswith("  worse (-")
    assert "paired t-test over 3 trials" in lines[3]
    assert " points for new seeds on these test images, -" in lines[3]
    assert " for new seeds and new images; paired" in lines[3]


def test_a_run_is_not_better_than_itself(folder, capsys):
    for name in ("good", "goods", "folds"):
        _, lines, _ = say(capsys, folder / name, folder / name)
        assert lines[-2].startswith("  no clear difference (+0.00 points)")


def test_folds_of_other_examples_make_no_pairs(folder):
    """The same seed and fold, but folds drawn by another split_seed, or another number of them."""
    ours = comparison.read(folder / "folds")
    assert len(ours.accuracies) == 2
    for name, section, change in (
        (files.CONFIG, "data", {"split_seed": 1}),
        (files.SUMMARY, None, {"folds": 3}),
    ):
        other = folder / f"folds {change}"
        shutil.copytree(folder / "folds", other)
        content = files.read_json(other / name)
        (content[section] if section else content).update(change)
        (other / name).write_text(json.dumps(content))
        with pytest.raises(UserError, match="fewer than two seeds or folds in common"):
            comparison.versus(ours, comparison.read(other))


def test_runs_of_other_data_are_not_compared(folder):
    good = comparison.read(folder / "good")
    with pytest.raises(UserError, match=r"has other data than .*; nothing can be compared"):
        comparison.versus(good, good._replace(fingerprint="another"))


def test_the_same_difference_each_time_is_told_and_not_tested(folder):
    ours = comparison.read(folder / "goods")
    better = {pair: accuracy + 0.01 for pair, accuracy in ours.accuracies.items()}
    theirs = ours._replace(accuracies=better)
    found = comparison.versus(ours, theirs)
    said = compare_text.sentence(ours, theirs, found)
    assert said.startswith("no clear difference (+1.00 points): the same in all 3 trials")
    # An interval without width would be too sure, and is not on the page either.
    assert (found.compared.low, found.compared.high) == (None, None)
    assert "– to – points" in Page(compare_page.render([ours, theirs], [found], None)).text


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (["good"], "RUN: give at least two workdirs"),
        (["good", "nowhere"], "there is no run"),
        (["goods", "folds"], "fewer than two seeds or folds in common"),
        (["good", "unfinished"], "is not finished"),
        (["good", "denoised"], "does not classify; only runs that do can be compared"),
    ],
)
def test_what_cannot_be_compared(folder, capsys, runs, message):
    (folder / "unfinished").mkdir(exist_ok=True)
    config = (folder / "good" / files.CONFIG).read_text()
    (folder / "unfinished" / files.CONFIG).write_text(config)
    if not (folder / "denoised").exists():
        shutil.copytree(folder / "good", folder / "denoised")
    (folder / "denoised" / files.SUMMARY).write_text('{"test_psnr": 20.0}')
    code, lines, err = say(capsys, *(folder / name for name in runs))
    assert (code, lines) == (2, [])
    assert message in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_what_does_not_fit_is_skipped_and_named(folder, tmp_path, capsys):
    runs = tmp_path / "runs"
    runs.mkdir()
    for name in ("good", "goods", "poor"):
        (runs / name).symlink_to(folder / name)
    (runs / "compare.html").write_text("")
    for name, file in (("other", files.CONFIG), ("lost", files.PREDICTIONS)):
        shutil.copytree(folder / "good", runs / name)
        (runs / name / file).unlink()
    content = files.read_json(folder / "good" / files.CONFIG) | {files.FINGERPRINT: "another"}
    (runs / "other" / files.CONFIG).write_text(json.dumps(content))
    (runs / "unfinished").mkdir()
    (runs / "unfinished" / files.CONFIG).write_text((folder / "good" / files.CONFIG).read_text())
    code, lines, err = say(capsys, *sorted(runs.iterdir()))
    assert code == 0
    assert [line.partition(":")[0] for line in lines if not line.startswith(" ")] == [
        f"{runs}/good", f"{runs}/poor", "page",
    ]  # fmt: skip
    reasons = {
        "compare.html": "there is no run",
        "goods": "has fewer than two seeds or folds in common",
        "lost": "is incomplete",
        "other": "has other data",
        "unfinished": "is not finished",
    }
    for line, (name, reason) in zip(err.splitlines(), reasons.items(), strict=True):
        assert line.startswith(f"skipped: {runs}/{name}: {reason}")
    code, lines, err = say(capsys, runs / "good", runs / "lost", runs / "other")
    assert (code, lines) == (2, [])
    assert err.startswith(f"error: {runs}/lost: is incomplete")
    assert err.endswith("; 1 more cannot be compared\n")


def test_a_sweep_of_one_seed_is_a_single_training(folder):
    swept = comparison.read(folder / "swept")
    assert swept.alone
    assert swept.logits.shape == (1, 360, 10)
    assert {row["trial"] for row in swept.history} == {swept.summary["chosen"]}
    found = comparison.versus(comparison.read(folder / "good"), swept)
    assert found.compared.n == 360
    assert found.compared.p_value == found.decisions.p_value


def test_runs_of_other_tasks_are_not_compared(folder):
    good = comparison.read(folder / "good")
    binary = good._replace(summary={**good.summary, "class_names": ["no", "yes"]})
    with pytest.raises(UserError, match=r"good: has other classes than .*good; give runs of one"):
        comparison.versus(good, binary)


def test_two_that_decide_alike_have_no_interval(folder):
    good = comparison.read(folder / "good")
    found = comparison.versus(good, good).compared
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, None, None, 1.0)


def test_intervals_are_of_trials_or_of_test_images(folder):
    good, goods = (comparison.read(folder / name) for name in ("good", "goods"))
    right = int(comparison.correct(good).sum())
    found = comparison.accuracy(good)
    assert (found.low, found.high) == stats.wilson(right, 360)
    accuracies = list(goods.accuracies.values())
    assert comparison.accuracy(goods) == stats.describe(accuracies, None, stats.SHARE)
    folds = comparison.read(folder / "folds")
    held_out = list(folds.accuracies.values())
    assert comparison.accuracy(folds) == stats.describe(held_out, range(2), stats.SHARE)


def test_intervals_for_new_images_are_over_the_seeds_that_both_have(folder):
    """Also if one run has more of them; differences of a seed and an image are pairs."""
    goods, poors = (comparison.read(folder / name) for name in ("goods", "poors"))
    right = [run.logits.argmax(-1) == run.labels for run in (goods, poors)]
    assert comparison.on_new_images(goods) == stats.on_new_images(right[0], stats.SHARE)
    fewer = dict(list(poors.accuracies.items())[1:])
    found = comparison.versus(goods, poors._replace(accuracies=fewer, logits=poors.logits[1:]))
    both = right[1][1:].astype(float) - right[0][1:]
    assert found.on_new_images == stats.on_new_images(both, (-1.0, 1.0))
    assert comparison.on_new_images(comparison.read(folder / "folds")) is None
    good = comparison.read(folder / "good")
    assert comparison.versus(good, good).on_new_images is None
    wilson = comparison.accuracy(good)
    assert comparison.on_new_images(good) == pytest.approx((wilson.low, wilson.high))
    assert comparison.intervals(good)[0][0] == "95% interval for new images"


def test_folds_are_compared_with_allowance_for_what_they_share(folder):
    ours = comparison.read(folder / "folds")
    better = {pair: value + 0.01 + 0.001 * pair[1] for pair, value in ours.accuracies.items()}
    found = comparison.versus(ours, ours._replace(accuracies=better))
    assert found.compared == stats.paired(
        *(list(x.values()) for x in (ours.accuracies, better)), range(2), stats.SHARE
    )
    said = compare_text.sentence(ours, ours, found)
    assert "paired t-test over 2 folds, allowing for the examples that they share: p = " in said


# --- the page -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def page(folder):
    """Of the two single runs, as the command writes it."""
    assert compare.main([str(folder / "good"), str(folder / "poor")]) == 0
    return Page((folder / compare.PAGE).read_text())


def test_the_page_says_what_is_printed(folder, page):
    good, poor = (comparison.read(folder / name) for name in ("good", "poor"))
    found = comparison.versus(good, poor)
    assert "2 runs on digits · multiclass · compared with good" in page.text
    verdict = comparison.verdict(found.compared)
    assert f"{verdict.capitalize()} 95% interval" in page.text
    assert formats.percent(good.summary["test_accuracy"]) in page.text
    right, wrong = comparison.correct(good), ~comparison.correct(poor)
    table = f"right wrong right {(right & ~wrong).sum()} {(~right & ~wrong).sum()} "
    table += f"wrong {(right & wrong).sum()} {(~right & wrong).sum()}"
    assert table in page.text


def test_the_page_shows_the_keys_that_differ(folder, page):
    rate = comparison.read(folder / "good").config["optim"]["learning_rate"]
    text = page.text
    differ, shared = text[: text.index("What all share")], text[text.index("What all share") :]
    assert f"optim.learning_rate {rate} 0.0001" in differ
    assert "optim.learning_rate" not in shared
    assert "model.widths" not in differ
    assert "model.widths [16]" in shared
    assert [cell for cell in page.all("td") if cell.get("class") == "other"] == [{"class": "other"}]


def test_the_page_shows_images_that_one_alone_gets_right(folder, page):
    good, poor = (comparison.read(folder / name) for name in ("good", "poor"))
    right = [comparison.correct(run) for run in (good, poor)]
    alone = [np.flatnonzero(right[1] & ~right[0]), np.flatnonzero(right[0] & ~right[1])]
    shown = [int(image["title"].removeprefix("test image ")) for image in page.all("img")]
    count = [min(len(index), compare_page.EXAMPLES) for index in alone]
    assert len(shown) == sum(count) > compare_page.EXAMPLES
    assert set(shown[: count[0]]) <= set(alone[0].tolist())
    assert set(shown[count[0] :]) <= set(alone[1].tolist())
    # Those first on which the two disagree most.
    true = [comparison.probabilities(run)[np.arange(360), run.labels] for run in (good, poor)]
    most = alone[1][np.argsort(-(true[0] - true[1])[alone[1]], kind="stable")]
    assert shown[count[0] :] == most[: compare_page.EXAMPLES].tolist()
    images = splits.load(flags.parse([MLP]).config).test.images
    assert page.all("img")[0]["src"] == pictures.png(images[shown[0]])


def test_a_page_of_many_trials_and_the_same_bytes_again(folder):
    runs = [comparison.read(folder / name) for name in ("goods", "poors", "goods")]
    found = [comparison.versus(runs[0], run) for run in runs[1:]]
    text = compare_page.render(runs, found, None)
    check_self_contained(text)
    assert text == compare_page.render(runs, found, None)
    page = Page(text)
    assert "Paired t-test p " in page.text
    assert "3 trials of the same seed" in page.text
    assert "each run by its ensemble" in page.text
    assert page.text.count("The images are not shown: the data is not available.") == 2
    assert not page.all("img")
    assert len(page.all("svg")) == 2
    for accuracy in runs[1].accuracies.values():
        assert f"poors: {accuracy:.2%}" in page.text


def test_what_is_no_probability_is_not_shown_as_one(folder):
    runs = [comparison.read(folder / name) for name in ("good", "poor")]
    runs[0] = runs[0]._replace(summary={**runs[0].summary, "ece": None})
    found = [comparison.versus(*runs)]
    page = compare_page.render(runs, found, comparison.test_images(runs[0]))
    seen = re.findall(
        r'style="background: var\(--(\w+)\)"></i>(?:<b>)?\d(?:</b>)?(.*?)</small>', page
    )
    assert {bool(probability) for colour, probability in seen if colour == "train"} == {False}
    assert {bool(probability) for colour, probability in seen if colour == "accent"} == {True}


def test_a_page_of_folds_says_so(folder):
    run = comparison.read(folder / "folds")
    page = Page(compare_page.render([run, run], [comparison.versus(run, run)], None))
    assert "Accuracy on held-out folds" in page.text
    assert "no test" in page.text  # all differences are 0
    assert "Nothing: their configurations are the same." in page.text


def test_a_setting_that_the_same_folds_chose_is_said_to_be_flattered(folder, capsys):
    _, lines, _ = say(capsys, folder / "folds", folder / "chosen folds")
    said = "the same folds chose its setting among 2, and so flatter it; config.sweep.outer_folds"
    (place,) = (i for i, line in enumerate(lines) if line.startswith(f"  {said}"))
    assert lines[place - 1].startswith(f"{folder}/chosen folds: accuracy on held-out folds ")
    runs = [comparison.read(folder / name) for name in ("folds", "chosen folds", "swept")]
    page = Page(compare_page.render(runs[:2], [comparison.versus(*runs[:2])], None))
    assert page.text.count(said) == 1
    assert f"chosen folds: {said}" in page.text
    # Test examples are unbiased: nothing was chosen on them.
    assert [bool(comparison.flattery(run)) for run in runs] == [False, True, False]


def test_images_are_those_of_the_run_or_none(folder):
    good = comparison.read(folder / "good")
    assert comparison.test_images(good) is not None
    earlier = {key: value for key, value in good.config.items() if key != "task"}
    assert comparison.test_images(good._replace(config=earlier)) is not None
    assert comparison.test_images(good._replace(fingerprint="other")) is None
    moved = {**good.config, "data": {**good.config["data"], "name": "csv:/nowhere.csv"}}
    assert comparison.test_images(good._replace(config=moved)) is None


def test_a_key_that_only_one_net_has_is_not_there_in_the_other(folder):
    good = comparison.read(folder / "good")
    model = {key: value for key, value in good.config["model"].items() if key != "widths"}
    narrow = good._replace(config={**good.config, "model": model})
    differ, _ = compare_page.keys([good, narrow])
    assert differ == [("model.widths", [[16], "–"])]
    text = compare_text.compare([good, narrow], [comparison.versus(good, narrow)])
    assert "\n  config.model.widths is not there\n" in text


def test_names_are_short_where_they_tell_runs_apart():
    assert compare_page.short_names(["runs/a", "runs/b"]) == ["a", "b"]
    assert compare_page.short_names(["x/a", "y/a"]) == ["x/a", "y/a"]
    assert compare_page.short_names(["x/a", "x/a"]) == ["a", "a"]


def test_the_page_goes_where_it_is_said(folder, capsys):
    argv = [folder / "good", folder / "poor", f"--page={folder}/elsewhere.html"]
    code, lines, _ = say(capsys, *argv)
    assert (code, lines[-1]) == (0, f"page: {folder}/elsewhere.html")
    assert (folder / "elsewhere.html").exists()
    code, lines, err = say(capsys, *argv[:2], f"--page={folder}/nowhere/page.html")
    assert (code, len(lines)) == (2, 4)  # what is printed is not lost
    assert err.endswith("(No such file or directory); make room, or write elsewhere\n")
