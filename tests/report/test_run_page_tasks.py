"""The pages of multilabel and denoising runs, with one trial and with several."""

import re

import numpy as np
import pytest
from pages import Page, check_self_contained
from reports import describe_settings, grid, make_run, make_sweep

from mnist_jax.analysis import stats
from mnist_jax.models.registry import Layer
from mnist_jax.report import formats, pictures, run_page

OF_CLASSES = ("confusion_matrix", "ece", "reliability", "test_top2_accuracy", "class_names")
OF_LABELS = ("per_class", "macro", "weighted", "test_errors")
LAYERS = [Layer("Dense_0", "Dense", (2,), 1570, 0)]
EXPLANATION = run_page.Explanation(LAYERS, {}, np.zeros((0, 28, 28)))


def scored(rows, score, values):
    """The rows with scores of another task in place of the accuracies."""
    return [
        {**row, "val_accuracy": None, f"val_{score}": value}
        for row, value in zip(rows, values, strict=True)
    ]


def plain(score, without, **summary):
    made = make_run(["large", "odd"], 20)
    kept = {key: value for key, value in made["summary"].items() if key not in without}
    history = [row | {"train_accuracy": None} for row in made["history"]]
    return run_page.FinishedRun(
        summary=kept | {"score": score, f"val_{score}": 0.75} | summary,
        history=scored(history, score, np.linspace(0.4, 0.7, 4).tolist()),
        trials=[{"trial": 0, "status": "finished"}],
        config=made["config"],
        images=made["images"],
        labels=np.eye(2, dtype=np.int32)[made["labels"]],
        scores=made["logits"][None],
        noisy=None,
        held_out=None,
        held_out_name="on validation",
    )


def several(score, without, **summary):
    run = make_sweep(grid(model__dropout=(0.0, 0.2)))
    values = (0.6 + np.arange(6) / 100).tolist()
    trials = scored(run.trials, score, values)
    found = stats.describe(values[3:])._asdict()
    kept = {key: value for key, value in run.summary.items() if key not in without}
    kept |= {
        "score": score,
        f"val_{score}": found["mean"],
        "settings": describe_settings(trials, score),
        "test": {score: found, "loss": found},
        "ensemble": None,
        "test_accuracy": None,
    }
    return run._replace(
        summary=kept | summary,
        trials=trials,
        labels=np.eye(2, dtype=np.int32)[run.labels],
        history=[row | {"train_accuracy": None, "val_accuracy": None} for row in run.history],
    )


def denoising(run):
    """The run with pixels as scores: each trial restores its own grey level."""
    trials, size = len(run.scores), len(run.images)
    levels = np.linspace(0.2, 0.6, trials, dtype=np.float32)[:, None, None]
    noisy = np.random.default_rng(0).uniform(0, 2, (size, 28, 28, 1)).astype(np.float32)
    pixels = np.broadcast_to(levels, (trials, size, 784)).copy()
    return run._replace(scores=pixels, noisy=noisy)


PSNR = {
    "test_psnr": 21.5, "test_ssim": 0.8765, "test_pixel_error": 12.345, "test_noisy_psnr": 13.0,
    "test_accuracy": None,
}  # fmt: skip


def check_mistakes(text, run):
    """Images with a wrong label, the surest wrong answer first, with true and predicted labels."""
    names = [row["name"] for row in run.summary["per_class"]]
    scores, truth = run.scores.mean(axis=0), run.labels > 0
    wrong = np.where((scores > 0) != truth, abs(scores), 0)
    order = [i for i in np.argsort(-wrong.max(axis=1)).tolist() if wrong[i].any()]
    found = re.findall(r'alt="Test image (\d+): (.*?), taken for (.*?)"', text)
    assert order == [int(i) for i, *_ in found] != []
    for i, *labels in found:
        for named, said in zip(labels, (truth, scores > 0), strict=True):
            expected = [name for name, has in zip(names, said[int(i)], strict=True) if has]
            assert named == (", ".join(expected) or "none")


def test_multilabel():
    run = plain("macro_f1", OF_CLASSES, test_errors=5, test_accuracy=0.75, test_macro_f1=0.125)
    text = run_page.render(run, EXPLANATION, "it")
    check_self_contained(text)
    page = Page(text)
    assert "Test macro F1 12.50%" in page.text
    assert "All labels right 75.00% 5 errors in 20 images" in page.text
    assert "Validation macro F1 75.00% best epoch: 4" in page.text
    rows = re.findall(r'<th scope="row">(large|odd)</th><td>7</td><td>(.*?)</td>', text)
    assert rows == [("large", "50.0%"), ("odd", "50.0%")]
    assert ">Macro F1</text>" in text  # of a panel of the learning curves
    check_mistakes(text, run)
    for heading in ("Confusion", "Calibration", "Sweep", "Settings"):
        assert f"{heading}</h2>" not in text
    assert "The net</h2>" in text
    assert "What to try next" in text


def test_denoise():
    run = denoising(plain("psnr", OF_CLASSES + OF_LABELS, **PSNR))
    text = run_page.render(run, EXPLANATION, "it")
    check_self_contained(text)
    page = Page(text)
    assert "Test PSNR 21.50 dB" in page.text
    assert "20 test images; 13 dB before" in page.text
    assert "Validation PSNR 0.75 dB" in page.text
    assert "12.35" in page.text
    assert "0.8765" in page.text
    assert ">PSNR</text>" in text
    assert ">Accuracy</text>" not in text
    shown = [image["src"] for image in page.all("img")]
    assert len(shown) == 2 * 3 * run_page.RESTORED
    gray = np.full((28, 28, 1), round(0.2 * 255), np.uint8)
    first = pictures.grey(run.noisy)[0], gray, run.images[0]
    assert shown[:3] == [pictures.png(image) for image in first]
    errors = np.square(0.2 - run.images / 255).mean(axis=(1, 2, 3))
    worst = np.argsort(-errors)[: run_page.RESTORED].tolist()
    part = text.partition("The worst restored images</h2>")[2].partition("</section>")[0]
    assert [int(i) for i in re.findall(r'alt="Restored test image (\d+)"', part)] == worst
    assert f"{-10 * np.log10(errors[worst[0]]):.2f} dB<small" in part


def test_noise_without_a_ratio_has_a_dash():
    run = denoising(plain("psnr", OF_CLASSES + OF_LABELS, **PSNR | {"test_noisy_psnr": None}))
    text = Page(run_page.render(run, None, "")).text
    assert f"; {formats.NOTHING} dB before" in text
    assert "The net" not in text


def test_multilabel_sweep():
    run = several("macro_f1", OF_CLASSES, test_accuracy=0.71, test_errors=3.5, test_macro_f1=0.64)
    text = run_page.render(run, EXPLANATION, "it")
    check_self_contained(text)
    words = Page(text).text
    assert "Test macro F1 64.00% ± 1.00%, mean and standard deviation of 3 trials" in words
    assert "All labels right 71.00% 3.5 errors in 12 images" in words
    assert "validation macro F1" in words
    assert "Validation macro F1 64.00% of the chosen setting" in words
    assert "dropout 0.2 (chosen)" in words
    check_mistakes(text, run)
    assert "by the mean score of 3 trials" in words
    assert "-3.00" in words


def test_denoising_sweep():
    run = several("psnr", OF_CLASSES + OF_LABELS, **PSNR)
    run = denoising(run)
    text = run_page.render(run, EXPLANATION, "it")
    check_self_contained(text)
    page = Page(text)
    assert "Test PSNR 21.50 dB ± 0.01 dB, mean and standard deviation of 3 trials" in page.text
    assert "trial 5: 0.65 dB" in text
    assert "validation PSNR" in page.text
    assert "Differences are in dB" in page.text
    assert "-0.03" in page.text
    for heading in ("Confusion", "Mistakes", "Ensemble", "Labels"):
        assert f"{heading}</h2>" not in text
    restored = np.full((28, 28, 1), round(0.4 * 255), np.uint8)  # the mean of the trials
    assert page.all("img")[1]["src"] == pictures.png(restored)
    assert "mean output of 3 trials" in page.text


@pytest.mark.parametrize("score", ["macro_f1", "psnr"])
def test_nested_scores_have_their_unit(score):
    fold = {"fold": 0, "setting": 0, "overrides": {}, "held_out": 10, "score": 0.5}
    nested = {
        "score": stats.describe([0.5, 0.7], [0, 1])._asdict(),
        "folds": [fold, fold | {"fold": 1, "score": 0.7}],
    }
    without = OF_CLASSES + (OF_LABELS if score == "psnr" else ())
    other = PSNR if score == "psnr" else {"test_errors": 1.0, "test_macro_f1": 0.6}
    text = run_page.render(several(score, without, nested=nested, **other), None, "it")
    assert f"<td>{'0.70 dB' if score == 'psnr' else '70.00%'}</td></tr>" in text
