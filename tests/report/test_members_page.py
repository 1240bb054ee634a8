"""The page of a run of many members: what it draws and says of what was swept, or was not."""

import itertools
import re

import numpy as np
import pytest
from pages import check_self_contained

from mnist_jax.analysis import stats, thresholds
from mnist_jax.data.splits import Split
from mnist_jax.report import formats, members_page, sweep_plots
from mnist_jax.runs import members_results

RATES, DROPOUTS, NETS = (1e-3, 3e-3, 0.01), (0.0, 0.2), ("relu", "gelu")


def settings_of(*swept):
    """Every combination of some keys and their values."""
    keys = [key for key, _ in swept]
    return [
        dict(zip(keys, values, strict=True))
        for values in itertools.product(*(values for _, values in swept))
    ]


def made(settings, seeds=3, validated=True, folds=0, diverged=(), outer=(), probable=True):
    """A run of so many epochs as results: summary, rows and history."""
    rng = np.random.default_rng(0)
    rows, history = [], []
    for member, (number, seed) in enumerate(itertools.product(range(len(settings)), range(seeds))):
        accuracy = 0.9 + 0.005 * number + 0.001 * seed if validated else None
        lost = member in diverged
        rows.append(
            {
                "member": member,
                "setting": number,
                "overrides": settings[number],
                "seed": seed,
                "fold": None,
                "status": "diverged" if lost else "finished",
                "val_accuracy": None if lost else accuracy,
            }
        )
        for epoch in (1, 2):
            values = dict.fromkeys(
                ("train_loss", "train_accuracy", "val_loss", "val_accuracy"), 0.4 * epoch
            )
            if not validated:
                values |= {"val_loss": None, "val_accuracy": None}
            history.append({"epoch": epoch, "member": member, **values})
    described = members_results.describe_settings(rows)
    chosen = max(range(len(settings)), key=lambda i: members_results.rank(described[i]))
    described = members_results.beside_chosen(rows, described, chosen)
    judged = stats.describe(rng.uniform(0.9, 0.95, 1 if folds else seeds).tolist())._asdict()
    bins = [{"low": 0.0, "high": 1.0, "count": 7, "confidence": 0.8, "accuracy": 0.9}]
    committee = {
        "members": seeds,
        "nll": 0.123,
        "nll_of_members": 0.234,
        "ece": 0.0456,
        "reliability": [{**bins[0], "count": 1000}],
        "test_accuracy": {"mean of probabilities": 0.96},
        "by_size": [
            {"size": 1, "accuracies": [0.9, 0.91, 0.93]},
            {"size": seeds, "accuracies": [0.96]},
        ],
    }
    if not probable:
        committee |= dict.fromkeys(("nll", "nll_of_members", "ece", "reliability"))
        bins = None
    summary = {
        "dataset": "digits",
        "requested_dataset": "digits",
        "model": "mlp",
        "members": len(rows),
        "folds": folds,
        "diverged": len(diverged),
        "settings": described,
        "chosen": chosen,
        "num_params": 1234,
        "num_train": 1000,
        "num_val": 100 if validated else 0,
        "nested": members_results.describe_outer(outer) if outer else None,
        "test": {
            "accuracy": judged,
            "loss": judged,
            "ece": judged if probable else None,
            "reliability": bins,
        },
        "committee": committee if seeds > 1 and not folds else None,
        "confusion_matrix": [[5, 1], [0, 6]],
        "class_names": ["0", "1"],
        "train_seconds": 1.0,
        "compile_seconds": 1.0,
        "device": "cpu",
        "backend": "cpu",
        "peak_rss_bytes": 1,
        "versions": {"jax": "1"},
        "data_fingerprint": "abc",
        "git_revision": None,
    }
    return summary, rows, history


def page(*args, held_out=None, tested=False, **kwargs):
    summary, rows, history = made(*args, **kwargs)
    if tested:
        rows = [{**row, "test_accuracy": 0.9 + 0.01 * row["seed"]} for row in rows]
    members = 1 if kwargs.get("folds") else kwargs.get("seeds", 3)
    labels = np.repeat(np.int32([0, 1]), 6)
    images = np.zeros((12, 28, 28, 1), np.uint8)
    logits = np.tile(np.float32(np.eye(2)[labels]), (members, 1, 1))
    logits[:, 2] = (-1.0, 1.0)  # all are wrong here, surely
    logits[0, 9] = (1.5, 0.0)  # and one of them here
    test = Split(images, labels)
    return members_page.render(
        summary, rows, history, {"a": {"b": 1}}, test, logits, command="it", held_out=held_out
    )


def headings(text):
    return re.findall(r"<h2[^>]*>(.*?)</h2>", text)


def labels(figure):
    """What a figure's axes say."""
    (axes,) = figure.axes
    texts = [axes.get_xlabel(), axes.get_ylabel(), *(t.get_text() for t in axes.texts)]
    return [*texts, *(tick.get_text() for tick in axes.get_xticklabels())]


def test_settings_stand_beside_the_chosen_one(monkeypatch):
    """With an interval where differences vary: one without width would be too sure."""
    text = page(settings_of(("optim.learning_rate", RATES)))
    assert '<th scope="col">Beside the chosen</th>' in text
    assert re.search(r"<td>–</td></tr>\s*</tbody>", text)  # the last one is the chosen one
    assert "<td>-0.50</td></tr>" in text
    gain = stats.paired([0.90, 0.92, 0.95], [0.89, 0.90, 0.92])
    beside = {"beside_chosen": gain._asdict()}
    monkeypatch.setattr(
        members_results, "beside_chosen", lambda rows, settings, _: [s | beside for s in settings]
    )
    varied = page(settings_of(("optim.learning_rate", RATES)))
    assert f"<td>-2.00 ({100 * gain.low:+.2f} to {100 * gain.high:+.2f})</td></tr>" in varied
    assert "Beside the chosen" not in page([{}])


def test_seeds_alone_are_no_sweep():
    text = page([{}])
    assert "What was swept" not in headings(text)
    assert {"Members", "Learning", "Committees", "Confusion"} <= set(headings(text))
    assert "as configured" in text
    assert "Always answering “0” would score 50.00%" in text
    assert "Chosen setting" not in text


@pytest.mark.parametrize(
    ("swept", "shown"),
    [
        ([("optim.learning_rate", RATES)], {"optim.learning_rate", "validation accuracy"}),
        ([("optim.learning_rate", (1e-5, 1.0))], {"optim.learning_rate"}),
        ([("model.widths", ([4], [8, 8]))], {"model.widths", "[4]", "[8, 8]"}),
        ([("model.activation", NETS)], {"relu", "gelu"}),
        (
            [("optim.learning_rate", RATES), ("model.dropout", DROPOUTS)],
            {"optim.learning_rate", "model.dropout", "0.2", "92.60%"},
        ),
        (
            [
                ("optim.learning_rate", RATES),
                ("model.dropout", DROPOUTS),
                ("model.activation", NETS),
            ],
            {"learning_rate", "dropout", "activation", "accuracy", " relu", " 0.01"},
        ),
    ],
    ids=["one", "logarithmic", "lists", "words", "two", "three"],
)
def test_a_grid_is_drawn_by_its_number_of_keys(swept, shown):
    settings = settings_of(*swept)
    summary, *_ = made(settings)
    assert shown <= set(labels(sweep_plots.sweep(summary["settings"])))
    text = page(settings)
    assert "What was swept" in headings(text)
    assert text.count("(chosen)") == 1
    best = sweep_plots.name(settings[-1])  # made to be so
    assert f"{best} (chosen)" in text.replace("&#34;", '"')


def test_a_setting_that_diverged_whole_leaves_its_place_in_the_grid_empty():
    settings = settings_of(("optim.learning_rate", RATES), ("model.dropout", DROPOUTS))
    summary, *_ = made(settings, diverged=(3, 4, 5))  # all of the second setting
    found = labels(sweep_plots.sweep(summary["settings"]))
    assert {"optim.learning_rate", "model.dropout", "0.2", "92.60%"} <= set(found)
    assert sum(text.endswith("%") for text in found) == len(settings) - 1


def test_a_listed_set_of_other_overrides_each_has_no_picture_of_a_sweep():
    """An ablation: there is no axis that all of them are on."""
    settings = [{}, {"optim.clip": 1.0}, {"model.dropout": 0.5}]
    text = page(settings)
    assert "What was swept" not in headings(text)
    assert "dropout 0.5 (chosen)" in text
    assert "What was swept" not in headings(page(settings[1:]))


def test_a_committee_is_shown_beside_its_members():
    text = page([{}])
    assert "Negative log-likelihood</th><td>0.234</td><td>0.123</td>" in text
    assert "<td>4.56%</td>" in text
    assert "1,000 at confidence 80.0%: 90.0% right" in text
    assert "7 at confidence 80.0%: 90.0% right" in text
    assert re.search(r"Accuracy by mean of probabilities</th><td>9\d.\d\d%</td><td>96.00%", text)
    alone = page([{}], seeds=1)
    assert "7 at confidence 80.0%: 90.0% right" in alone
    assert "ommittee" not in alone.partition("</style>")[2]


def test_outer_folds_are_listed_with_what_they_chose():
    outer = [
        {"fold": i, "setting": i, "overrides": {"optim.clip": clip}, "held_out": 10, "accuracy": x}
        for i, (clip, x) in enumerate(((1.0, 0.91), (2.0, 0.93)))
    ]
    text = page(settings_of(("optim.clip", (1.0, 2.0))), folds=2, outer=outer)
    assert re.search(r"Nested cross-validation</dt><dd>92.00% <small>± 1.41%, 2 outer folds", text)
    assert re.search(r">1</th><td>clip 1</td><td>10</td><td>91.00%", text)
    assert re.search(r">2</th><td>clip 2</td><td>10</td><td>93.00%", text)


def test_without_validation_nothing_is_drawn_of_it():
    text = page([{}], validated=False)
    assert "Members" not in headings(text)
    assert "Settings" not in headings(text)
    assert "Validation accuracy" not in text


def test_without_validation_the_test_accuracies_are_drawn():
    text = page([{}], validated=False, tested=True)
    assert "A point is a member's test accuracy" in text
    assert text.count(">test accuracy</text>") == 2  # and that of committees
    assert re.findall(r"member (\d): (9\d\.\d\d)%", text) == [
        ("0", "90.00"),
        ("1", "91.00"),
        ("2", "92.00"),
    ]
    assert "Settings" not in headings(text)
    assert "Members" not in headings(page([{}], seeds=1, validated=False, tested=True))
    validated = page([{}], tested=True)
    assert "A point is a member's validation accuracy" in validated
    assert validated.count(">test accuracy</text>") == 1


def test_what_is_no_probability_is_not_called_one():
    assert "mean probabilities of 3" in page([{}])
    text = page([{}], probable=False)
    assert "mean softmax of 3" in text
    assert "Calibration" not in headings(text)
    assert "probabilit" not in text


def test_who_diverged_is_counted_and_not_drawn():
    settings = settings_of(("optim.learning_rate", RATES))
    text = page(settings, diverged=(7, 8))  # of the last setting, which would be the best
    assert re.search(r"Diverged</dt><dd>2 ", text)
    assert "learning_rate 0.003 (chosen)" in text
    assert "member 6: 91.00%" in text
    assert "member 7" not in text
    everybody = page([{}], seeds=2, diverged=(0,))
    assert "member 1: 90.10%" in everybody


def test_what_the_committee_gets_wrong_is_shown():
    text = page([{}])
    assert re.findall(r'alt="Test image (\d+): (\d), taken for (\d)"', text) == [("2", "0", "1")]
    assert "<small>3 of 3</small>" in text
    alone = page([{}], seeds=1)
    assert [m[0] for m in re.findall(r'alt="Test image (\d+): (\d)', alone)] == ["2", "9"]
    assert "of 1</small>" not in alone


def test_folds_are_followed_by_one_training():
    text = page([{}], folds=3)
    assert "of one training on all training images" in text
    assert "± 0.10%, 3 held-out folds" in text
    assert "Committees" not in headings(text)


def scores_out_of_fold(seeds, seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, 300).astype(np.int32)
    return (rng.normal(size=(seeds, 300, 2)) + np.eye(2)[labels]).astype(np.float32), labels


@pytest.mark.parametrize("seeds", [1, 2])
def test_thresholds_are_chosen_out_of_fold(seeds):
    held_out = scores_out_of_fold(seeds)
    text = page([{}], folds=3, held_out=held_out)
    check_self_contained(text)
    section = text.partition("Thresholds</h2>")[2].partition("</section>")[0]
    odds = np.diff(held_out[0].astype(np.float64))[..., 0].ravel()
    labels = np.tile(held_out[1], seeds)
    for name, choose in (("precision", thresholds.at_precision), ("recall", thresholds.at_recall)):
        chosen = formats.percent(1 / (1 + np.exp(-choose(odds, labels, 0.9))))
        assert f'<th scope="row">90% {name} out of fold</th><td>{chosen}</td>' in section
    # Of twelve test images one is a yes by mistake and one a no.
    assert '<th scope="row">the higher score</th><td>50.00%</td><td>83.33%</td>' in section


def test_what_has_no_folds_or_three_classes_has_no_thresholds():
    assert "Thresholds" not in headings(page([{}], folds=3))
    three = np.zeros((1, 12, 3), np.float32), np.zeros(12, np.int32)
    split = Split(np.zeros((12, 28, 28, 1), np.uint8), three[1])
    assert members_page._two_classes(split, three[0], three) is None


def test_the_same_results_make_the_same_page():
    settings = settings_of(("optim.learning_rate", RATES), ("model.dropout", DROPOUTS))
    assert page(settings) == page(settings)


def test_what_validation_chose_in_a_line():
    summary, *_ = made(settings_of(("model.dropout", DROPOUTS)))
    described = summary["settings"]
    said = members_results.choice(described, 1, folds=0)
    assert said == "best of 2 settings by validation: dropout 0.2: accuracy 90.60% ± 0.10"
    assert members_results.choice(described[:1], 0, folds=0) == ""
    said = members_results.choice(described[:1], 0, folds=5)
    assert said == "5 held-out folds: accuracy 90.10% ± 0.10"
    alone = made([{}], seeds=1, validated=False)[0]["settings"]
    assert members_results.choice(alone, 0, folds=0) == ""
