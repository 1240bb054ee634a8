"""What the study's systems show besides their figures: out of fold, of one seed, of noise."""

import re

import numpy as np
import pytest
from pages import check_self_contained
from scipy.special import softmax
from sklearn.metrics import confusion_matrix, roc_auc_score
from sklearn.neighbors import KNeighborsClassifier

from experiments import by_hand
from experiments.study import page as study_page
from experiments.study.row import Settings
from experiments.study.systems import linear, neighbours, nets, out_of_fold, references
from mnist_jax import config as configs
from mnist_jax.analysis import error_analysis
from mnist_jax.data import datasets, splits
from mnist_jax.workdir import files

TINY = {"train.batch_size": 20, "optim.learning_rate": 0.01}


def shown_on_a_page(outcome):
    """The part of study.html that an outcome makes."""
    row = {
        "name": "row", "data": "d", "system": "s", "metric": "%", "theirs": None, "note": "",
        "constant": None, "best": None,
        "reproduced": {
            "seconds": outcome.seconds, "facts": {}, "described": {"mean": 1.0, "sd": None}
        },
    }  # fmt: skip
    record = {"rows": [row], "command": "it", "device": "d", "versions": {}, "git_revision": None}
    page = study_page.render(record, {"row": {"reproduced": outcome.shown, "best": None}})
    check_self_contained(page)
    return page


@pytest.fixture(scope="module")
def ten(tmp_path_factory):
    """A linear net of ten classes, cross-validated."""
    folder = tmp_path_factory.mktemp("ten")
    outcome = linear.cross_validated("ten", TINY, folds=2)(Settings(folder, 1, quick=True))
    return outcome, folder / "ten-2-folds"


def test_what_is_confused_is_out_of_fold(ten):
    outcome, run = ten
    with np.load(run / files.OUT_OF_FOLD) as stored:
        scores, labels = stored["logits"][0], stored["labels"]
    expected = confusion_matrix(labels, scores.argmax(1))
    assert outcome.shown["confusion"] == expected.tolist()
    shares = 100 * expected.trace() / expected.sum()
    assert np.mean(outcome.values) == pytest.approx(shares, abs=0.05)
    page = shown_on_a_page(outcome)
    assert "each by the fold that did not learn from it" in page
    assert ">3 as 5: " in page
    assert "of 5 taken for 3</title>" in page or not expected[5, 3]
    found = error_analysis.suspects(softmax(scores.astype(np.float64), axis=1), labels)
    assert f"the most suspect of {len(found.indices)}<" in page
    recall = 100 * expected[8, 8] / expected[8].sum()
    assert re.search(rf'<th scope="row">8</th><td>{expected[8].sum()}</td>.*?{recall:.2f}%', page)


def test_yes_or_no_is_judged_out_of_fold(tmp_path):
    settings = Settings(tmp_path, 1, quick=True)
    overrides = {**TINY, "task.name": "binary"}
    for outcome in (
        linear.cross_validated("five", overrides, folds=2)(settings),
        references.forest_of_a_5(settings),
    ):
        assert np.sum(outcome.shown["confusion"]) == 1437
        page = shown_on_a_page(outcome)
        for caption in ("Precision and recall against the threshold", "ROC curve"):
            assert caption in outcome.shown["figures"]
            assert f'<figcaption class="note">{caption}</figcaption>' in page
        recall = outcome.facts["recall"]
        assert f"as it decides: recall {recall:.1f}% from" in page
    assert ">ROC curves</figcaption>" in page  # of the forest, and of linear SGD beside it
    for name in ("linear SGD", "RandomForestClassifier"):
        assert f"{name}, AUC" in outcome.shown["figures"]["ROC curves"]
    auc = outcome.facts["of all together"]
    assert f"RandomForestClassifier, AUC {auc / 100:.4f}" in page


def test_a_net_and_a_forest_are_ranked_over_the_same_folds(tmp_path):
    """The net's values are of the run's own folds, by scikit-learn's area."""
    settings = Settings(tmp_path, 1, quick=True)
    outcome = linear.ranked("five", TINY)(settings)
    with np.load(tmp_path / "five-3-folds" / files.OUT_OF_FOLD) as stored:
        scores, labels = stored["logits"][0], stored["labels"]
    held_out = datasets.folds(labels, 3, 0)
    rows = files.read_rows(tmp_path / "five-3-folds" / files.TRIALS)
    for fold, auc, row in zip(held_out, outcome.values, rows, strict=True):
        assert row["val_accuracy"] == pytest.approx(np.mean(scores[fold].argmax(1) == labels[fold]))
        odds = scores[fold, 1] - scores[fold, 0]
        assert auc == pytest.approx(100 * roc_auc_score(labels[fold], odds))
    assert outcome.of_folds
    forest = references.forest_of_a_5(settings)
    assert len(forest.values) == 3
    assert forest.of_folds


def test_curves_mark_the_threshold_of_the_wished_precision():
    rng = np.random.default_rng(0)
    yes = np.arange(300) % 3 == 0
    figures = out_of_fold.of_yes_or_no("name", 3 * yes + rng.normal(size=300), yes, 1.5)
    told = re.findall(r"90% precision: precision ([\d.]+)%", " ".join(figures.values()))
    assert len(told) == 1
    assert float(told[0]) >= 90


def test_one_seed_of_several_is_said_to_be(tmp_path):
    net = nets.keras("mlp_512", "mnist")
    outcome = net(Settings(tmp_path, 2, quick=True))
    assert "Shown is what seed 1 came to, alone of 2." in shown_on_a_page(outcome)
    assert not net(Settings(tmp_path, 1, quick=True)).shown["note"]
    together = linear.on_test("trials", {})(Settings(tmp_path, 2, quick=True))
    assert "The confusion matrix adds up all 2 seeds." in shown_on_a_page(together)


def test_by_hand_has_a_net_and_seconds(monkeypatch):
    config = configs.default()
    config.data.name = "digits"
    found = by_hand.study(splits.load(config), seeds=1, iterations=10)
    assert found["seconds"] > 0
    monkeypatch.setattr(neighbours.hand, "study", lambda *args: found)
    outcome = neighbours.by_hand(Settings(None, 1, quick=True))
    assert outcome.seconds == found["seconds"]
    shapes = [layer["output_shape"] for layer in outcome.shown["layers"]]
    assert [shape for shape in shapes if len(shape) == 1] == [(512,), (10,)]
    params = by_hand.init(by_hand.jax.random.key(0))
    count = sum(x.size for x in params)
    assert f"{count:,} parameters in all" in shown_on_a_page(outcome)


def test_accuracy_of_neighbours_before_and_after():
    digits = datasets.load("digits")
    noise = np.random.default_rng(0).integers(0, 100, digits.test_images.shape, np.int16)
    noisy = digits.test_images + noise
    clean = digits.test_images + 0.4  # rounds to what it was
    found = neighbours.before_and_after(digits, noisy, clean)
    peer = KNeighborsClassifier(3, algorithm="brute")
    peer.fit(digits.train_images.reshape(1437, -1).astype(float), digits.train_labels)
    for name, images in (("noisy", noisy), ("restored", digits.test_images)):
        expected = 100 * peer.score(images.reshape(360, -1).astype(float), digits.test_labels)
        assert found[f"accuracy of kNN on {name} images"] == pytest.approx(expected)
    assert found["PSNR of the noisy images"] == pytest.approx(
        10 * np.log10(255**2 / np.mean(noise.astype(float) ** 2))
    )
