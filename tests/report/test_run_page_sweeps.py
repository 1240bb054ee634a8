"""The page of a run of several trials: the sweep, the settings, the ensemble, held-out folds."""

import re

import matplotlib as mpl
import numpy as np
import pytest
from pages import Page, check_self_contained
from reports import describe_settings, drawing, grid, make_sweep, render_sweep

from mnist_jax.analysis import ensemble, error_analysis, stats, thresholds
from mnist_jax.report import formats, plots, run_page, sweep_plots

RATES, DROPOUTS, ACTIVATIONS = (1e-3, 3e-3, 0.01), (0.0, 0.2), ("relu", "gelu")


PAGES: dict[str, str] = {}


def page(overrides, **kwargs):
    """The page of a sweep, made once for all tests."""
    key = repr((overrides, kwargs))
    if key not in PAGES:
        PAGES[key] = render_sweep(make_sweep(overrides, **kwargs))
    return PAGES[key]


def headings(text):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", text)


def section(text, heading):
    return text.partition(f"{heading}</h2>")[2].partition("</section>")[0]


def labels(figure):
    """The texts of a figure's axes."""
    (axes,) = figure.axes
    texts = [axes.get_xlabel(), axes.get_ylabel(), *(t.get_text() for t in axes.texts)]
    return [*texts, *(tick.get_text() for tick in axes.get_xticklabels())]


def test_settings_are_compared_with_the_chosen_one():
    """With an interval only where differences vary: one without width would be too sure."""
    run = make_sweep(grid(optim__learning_rate=RATES))
    text = render_sweep(run)
    assert '<th scope="col">vs. chosen</th>' in text
    assert re.search(r"\(chosen\)</th>.*<td>–</td></tr>", text)
    assert "<td>-0.50</td></tr>" in text
    gain = stats.paired([0.90, 0.92, 0.95], [0.89, 0.90, 0.92])
    settings = [s | {"vs_chosen": gain._asdict()} for s in run.summary["settings"]]
    varied = page(grid(optim__learning_rate=RATES), settings=settings)
    assert f"<td>-2.00 ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})</td></tr>" in varied
    assert "vs. chosen" not in page([{}])


def test_seeds_alone_are_no_sweep():
    text = page([{}])
    assert "Sweep" not in headings(text)
    assert {"Trials", "Learning", "Ensemble", "Confusion"} <= set(headings(text))
    assert "as configured" in text
    assert "Always answering “0” would score 50.00%" in text
    assert "Chosen setting" not in text


@pytest.mark.parametrize(
    ("swept", "shown"),
    [
        ({"optim__learning_rate": RATES}, {"optim.learning_rate", "validation accuracy"}),
        ({"optim__learning_rate": (1e-5, 1.0)}, {"optim.learning_rate"}),
        ({"model__widths": ([4], [8, 8])}, {"model.widths", "[4]", "[8, 8]"}),
        ({"model__activation": ACTIVATIONS}, {"relu", "gelu"}),
        (
            {"optim__learning_rate": RATES, "model__dropout": DROPOUTS},
            {"optim.learning_rate", "model.dropout", "0.2", "92.60%"},
        ),
        (
            {
                "optim__learning_rate": RATES,
                "model__dropout": DROPOUTS,
                "model__activation": ACTIVATIONS,
            },
            {"learning_rate", "dropout", "activation", "accuracy", " relu", " 0.01"},
        ),
    ],
    ids=["one", "logarithmic", "lists", "words", "two", "three"],
)
def test_a_grid_is_drawn_by_its_number_of_keys(swept, shown):
    settings = grid(**swept)
    run = make_sweep(settings)
    assert shown <= set(labels(sweep_plots.sweep(run.summary["settings"], "accuracy")))
    with drawing(["Sweep"]):
        text = render_sweep(run)
    assert "Sweep" in headings(text)
    assert text.count("(chosen)") == 1
    best = sweep_plots.name(settings[-1])
    assert f"{best} (chosen)" in text.replace("&#34;", '"')


def test_a_diverged_setting_leaves_an_empty_cell_in_the_grid():
    settings = grid(optim__learning_rate=RATES, model__dropout=DROPOUTS)
    run = make_sweep(settings, diverged=(3, 4, 5))  # all of the second setting
    found = labels(sweep_plots.sweep(run.summary["settings"], "accuracy"))
    assert {"optim.learning_rate", "model.dropout", "0.2", "92.60%"} <= set(found)
    assert sum(text.endswith("%") for text in found) == len(settings) - 1


def test_settings_that_override_different_keys_are_not_drawn():
    """An ablation has no axis for all of them."""
    settings = [{}, {"optim.clip": 1.0}, {"model.dropout": 0.5}]
    text = page(settings)
    assert "Sweep" not in headings(text)
    assert "dropout 0.5 (chosen)" in text
    assert "Sweep" not in headings(page(settings[1:]))


def test_the_ensemble_is_compared_with_its_trials():
    text = page([{}])
    check_self_contained(text)
    assert "Negative log-likelihood</th><td>0.234</td><td>0.123</td>" in text
    assert "<td>4.56%</td>" in text
    assert "1,000 at confidence 80.0%: 90.0% right" in text
    assert "7 at confidence 80.0%: 90.0% right" in text
    assert re.search(r"Accuracy by mean of probabilities</th><td>9\d.\d\d%</td><td>96.00%", text)
    alone = page([{}], seeds=1)
    assert "7 at confidence 80.0%: 90.0% right" in alone
    assert "nsemble" not in alone.partition("</style>")[2]


def test_outer_folds_are_listed_with_their_chosen_settings():
    folds = [
        {"fold": i, "setting": i, "overrides": {"optim.clip": clip}, "held_out": 10, "score": score}
        for i, (clip, score) in enumerate(((1.0, 0.91), (2.0, 0.93)))
    ]
    nested = {"score": stats.describe([0.91, 0.93], [0, 1])._asdict(), "folds": folds}
    text = page(grid(optim__clip=(1.0, 2.0)), folds=2, nested=nested)
    assert re.search(r"Nested cross-validation</dt><dd>92.00% <small>± 1.41%, 2 outer folds", text)
    assert re.search(r">1</th><td>clip 1</td><td>10</td><td>91.00%", text)
    assert re.search(r">2</th><td>clip 2</td><td>10</td><td>93.00%", text)


def test_without_validation_nothing_is_drawn_of_it():
    text = page([{}], seeds=1, validated=False)
    assert "Trials" not in headings(text)
    assert "Settings" not in headings(text)
    assert "Validation accuracy" not in text


def with_test_accuracy(run):
    trials = [{**row, "test_accuracy": 0.9 + 0.01 * row["seed"]} for row in run.trials]
    return render_sweep(run._replace(trials=trials))


def test_without_validation_the_test_accuracies_are_drawn():
    text = with_test_accuracy(make_sweep([{}], validated=False))
    assert "A point is a trial's test accuracy" in text
    assert text.count(">test accuracy</text>") == 2  # also of ensembles
    assert re.findall(r"trial (\d): (9\d\.\d\d)%", text) == [
        ("0", "90.00"),
        ("1", "91.00"),
        ("2", "92.00"),
    ]
    assert "Settings" not in headings(text)
    alone = with_test_accuracy(make_sweep([{}], seeds=1, validated=False))
    assert "Trials" not in headings(alone)
    validated = with_test_accuracy(make_sweep([{}]))
    assert "A point is a trial's validation accuracy" in validated
    assert validated.count(">test accuracy</text>") == 1


def test_scores_that_are_no_probabilities_are_not_called_so():
    assert "mean probabilities of 3" in page([{}])
    text = page([{}], probable=False)
    assert "mean softmax of 3" in text
    assert "Calibration" not in headings(text)
    assert "probabilit" not in text


def test_diverged_trials_are_counted_and_not_drawn():
    settings = grid(optim__learning_rate=RATES)
    text = page(settings, diverged=(7, 8), chosen=1)
    assert re.search(r"Diverged</dt><dd>2 ", text)
    assert "learning_rate 0.003 (chosen)" in text
    assert "trial 6: 91.00%" in text
    assert "trial 7" not in text
    one_left = page([{}], seeds=2, diverged=(0,))
    assert "trial 1: 90.10%" in one_left


def test_mistakes_of_the_ensemble_are_shown():
    text = section(page([{}]), "Mistakes")
    assert re.findall(r'alt="Test image (\d+): (\d), taken for (\d)"', text) == [("2", "0", "1")]
    assert "<small>3 of 3</small>" in text
    assert "<li>0 → 1" in text
    alone = section(page([{}], seeds=1), "Mistakes")
    assert [m[0] for m in re.findall(r'alt="Test image (\d+): (\d)', alone)] == ["2", "9"]
    assert "of 1</small>" not in alone


def test_kinds_of_error_and_closest_calls_are_of_the_ensemble():
    run = make_sweep([{}])
    text = render_sweep(run)
    assert "Errors of the ensemble (mean probabilities of 3 trials)." in section(
        text, "Kinds of error"
    )
    assert ">0 as 1: 1</text>" in text
    probabilities = ensemble.probabilities(run.scores)
    closest = error_analysis.most_ambiguous(probabilities, 16).tolist()
    found = section(text, "Closest calls")
    assert [int(i) for i in re.findall(r'title="test image (\d+)"', found)] == closest
    assert f"<span>{probabilities[9, 1]:.1%}</span>" in found
    assert "of the ensemble" not in page([{}], seeds=1)


def test_errors_of_classes_are_means_over_trials():
    classes = section(page([{}]), "Classes")  # of three trials, one error in all
    assert re.findall(r"</i>([\d.]+)</td>", classes) == ["0.3", "0.0"]
    assert "Means of 3 trials" in classes
    assert re.findall(r"</i>([\d.]+)</td>", section(page([{}], seeds=1), "Classes")) == ["1", "0"]


def test_the_net_is_shown():
    assert "The net" in headings(page([{}]))


def test_folds_are_followed_by_one_training():
    text = page([{}], folds=3)
    assert "of one training on all training images" in text
    words = Page(text).text
    first, spread = "Cross-validated accuracy 90.10%", "± 0.10%, mean and standard deviation of 3"
    then = "Test accuracy 90.00% of one training on all training images"
    assert words.index(first) < words.index(f"{spread} trials on 3 held-out folds")
    assert words.index(spread) < words.index(then)
    assert "cross-validated 90.10%, test 90.00%" in text.partition("</title>")[0]
    assert "which flatters it" not in text
    assert "chose this setting of 2, which flatters it" in page(grid(optim__clip=(1, 2)), folds=3)
    assert "Ensemble" not in headings(text)


def halved():
    """A sweep whose halving dropped the first two settings after epoch 1, the first as the best."""
    run = make_sweep(grid(optim__learning_rate=(*RATES, 0.03)), seeds=2)
    settings = run.summary["settings"]
    rounds = [
        {
            "epoch": 1,
            "settings": [
                {"setting": i, "val_score": stats.describe([0.8 + i / 100, 0.81])._asdict()}
                for i in range(4)
            ],
        }
    ]
    for setting in settings[:2]:
        setting |= {"dropped": True, "epochs": 1}
    settings[0]["val_score"]["mean"] = 0.99
    return run._replace(summary=run.summary | {"rounds": rounds})


def test_halving_compares_equal_budgets():
    """A figure for each of them; a dropped setting is in none of the later ones."""
    run = halved()
    text = render_sweep(run)
    check_self_contained(text)
    assert re.findall(r"<h3>(.*?)</h3>", section(text, "Sweep")) == ["After epoch 1", "At the end"]
    assert "trained for the same number of epochs" in section(text, "Sweep")
    drawn = [
        sweep_plots.sweep(part, "accuracy").axes[0].get_lines()[0].get_xdata().tolist()
        for part in run_page._budgets(run.summary).values()
    ]
    assert drawn == [[*RATES, 0.03], [0.01, 0.03]]
    assert "at the same epoch" in section(text, "Settings")
    assert "same epoch" not in page(grid(optim__learning_rate=RATES))


def test_settings_are_listed_by_rank_with_their_epochs():
    """Finished ones first; the dropped one with a high score after one epoch is not the best."""
    text = render_sweep(halved())
    rows = re.findall(r'<th scope="row">(learning.*?)</th><td>(\d)</td>', section(text, "Settings"))
    assert rows == [
        ("learning_rate 0.03 (chosen)", "2"),
        ("learning_rate 0.01", "2"),
        ("learning_rate 0.003 (dropped)", "1"),
        ("learning_rate 0.001 (dropped)", "1"),
    ]
    drawn = re.findall(r">(learning_rate [^<]*)</text>", section(text, "Trials"))
    assert [name.split()[1] for name in drawn] == ["0.03", "0.01", "0.003", "0.001"]
    assert drawn[2:] == [f"learning_rate {x} (dropped after epoch 1)" for x in (0.003, 0.001)]


def test_intervals_say_what_they_are_of():
    words = Page(page([{}])).text
    assert "95% interval of the mean over seeds on these test images: " in words
    assert "95% interval for new seeds and new images: 85.00% to 96.00%" in words
    assert "95% interval of the mean over seeds on these validation images" in words
    held_out = Page(page([{}], folds=3)).text
    assert "95% interval of the mean over folds, for new images" in held_out
    assert "95% interval for new images, of this training: 85.00% to 96.00%" in held_out
    alone = Page(page(grid(optim__clip=(1, 2)), seeds=1)).text
    assert "The vertical bar is the mean." in alone  # without any interval


def scores_out_of_fold(seeds, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 300).astype(np.int32)
    return (rng.normal(size=(seeds, 300, 2)) + np.eye(2)[labels]).astype(np.float32), labels


@pytest.mark.parametrize("seeds", [1, 2])
def test_thresholds_are_chosen_out_of_fold(seeds):
    held_out = scores_out_of_fold(seeds)
    text = render_sweep(make_sweep([{}], folds=3)._replace(held_out=held_out))
    check_self_contained(text)
    found = section(text, "Thresholds")
    odds = np.diff(held_out[0].astype(np.float64))[..., 0].ravel()
    labels = np.tile(held_out[1], seeds)
    for name, choose in (("precision", thresholds.at_precision), ("recall", thresholds.at_recall)):
        chosen = formats.percent(1 / (1 + np.exp(-choose(odds, labels, 0.9))))
        assert f'<th scope="row">90% {name} out of fold</th><td>{chosen}</td>' in found
    # Of twelve test images one is a yes by mistake and one a no.
    assert '<th scope="row">the higher score</th><td>50.00%</td><td>83.33%</td>' in found


def test_without_held_out_scores_no_threshold_is_chosen():
    found = section(page([{}], folds=3), "Thresholds")
    assert "the higher score" in found
    assert "out of fold" not in found


def test_the_same_results_make_the_same_page():
    settings = grid(optim__learning_rate=RATES, model__dropout=DROPOUTS)
    assert render_sweep(make_sweep(settings)) == render_sweep(make_sweep(settings))


def test_learning_curves_are_bands_of_the_chosen_setting():
    run = make_sweep(grid(model__dropout=DROPOUTS))
    for row in run.history:
        row["train_loss"] = 1.0 + row["trial"] / 10 if row["trial"] > 2 else 100.0
    chosen = [row for row in run.history if row["trial"] > 2]
    loss, *_ = plots.learning_curves(chosen).axes
    (line, _), (band, _) = loss.get_lines(), loss.collections
    assert [*line.get_ydata()] == [1.4, 1.4]
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (1.3, 1.5)
    drawn = plots.svg(plots.learning_curves(chosen), "Learning curves")
    assert drawn in render_sweep(run)


def test_one_curve_has_no_band():
    run = make_sweep([{}], seeds=1)
    assert not any(axes.collections for axes in plots.learning_curves(run.history).axes)


@pytest.mark.parametrize("score", ["psnr", "macro_f1"])
def test_scores_have_their_units(score):
    """PSNR in dB, other scores in percent, in texts as on axes."""
    trials = [
        {"trial": i, "setting": i // 2, "overrides": o, "status": "finished", "fold": None,
         "seed": i % 2, f"val_{score}": 0.5 + i / 10}
        for i, o in enumerate(s for s in grid(model__dropout=DROPOUTS) for _ in range(2))
    ]  # fmt: skip
    settings = describe_settings(trials, score)
    name, text = {"psnr": ("PSNR", "0.80 dB"), "macro_f1": ("macro F1", "80.00%")}[score]
    distribution = sweep_plots.distribution(trials, settings, score, "val")
    assert distribution.axes[0].get_xlabel() == f"validation {name}"
    assert f"trial 3: {text}" in plots.svg(distribution, "trials")
    sweep = sweep_plots.sweep(settings, score)
    assert f"validation {name}" in labels(sweep)
    for axis in (distribution.axes[0].xaxis, sweep.axes[0].yaxis):
        tick = axis.get_major_formatter()(0.5)
        assert tick in (["0.5 dB"] if score == "psnr" else ["50%", "50.0%"])
    gain = stats.paired([0.7, 0.8], [0.5, 0.6])
    assert settings[0]["vs_chosen"] == pytest.approx(gain._asdict())


def test_the_page_is_valid_in_every_variant():
    with mpl.rc_context({"font.size": 7}):
        for kwargs in ({}, {"folds": 3}, {"validated": False}, {"probable": False}, {"seeds": 1}):
            text = render_sweep(make_sweep([{}], **kwargs))
            check_self_contained(text)
            words = Page(text).text
            assert "None" not in words
            assert "nan" not in words.lower()
