"""Systems of scikit-learn: forests, boosting and exact support vector machines."""

import statistics
import time
from functools import partial
from typing import Any

import joblib
import numpy as np
from jaxtyping import Float, Int
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.metrics import precision_score, recall_score, roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from experiments.study.row import OUT_OF_FOLD, Outcome, Settings, confusion, of_seed
from experiments.study.systems import linear, out_of_fold
from experiments.study.systems.nets import KAGGLE, data_name
from mnist_jax.data import datasets


def load(dataset: str, settings: Settings) -> datasets.Dataset:
    """Load a data set of a study."""
    return datasets.load(data_name(dataset, settings))


def flat(images: Any) -> Float[np.ndarray, "n pixels"]:
    """Return rows of pixels in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def forest_of_a_5(settings: Settings) -> Outcome:
    """Return the ROC AUC of each fold of a forest of 100 trees for "is it a 5"."""
    classifier = RandomForestClassifier(n_jobs=-1, random_state=0)
    found = load("mnist", settings)
    images, yes = flat(found.train_images), found.train_labels == 5
    folds = linear.folds_of_a_5(yes)
    everyone = np.arange(len(yes))
    parts = [(np.setdiff1d(everyone, held_out), held_out) for held_out in folds]
    start = time.perf_counter()
    chances = cross_val_predict(classifier, images, yes, cv=parts, method="predict_proba")[:, 1]
    seconds = (time.perf_counter() - start) / len(folds)
    said = chances >= 0.5
    facts = {
        "of all together": 100 * roc_auc_score(yes, chances),
        "precision": 100 * precision_score(yes, said),
        "recall": 100 * recall_score(yes, said),
    }
    aucs = [100 * roc_auc_score(yes[held_out], chances[held_out]) for held_out in folds]
    name = type(classifier).__name__
    systems = {"linear SGD": linear.odds_of_a_5(settings), name: (chances, yes)}
    figures = {
        **out_of_fold.of_yes_or_no(name, chances, yes, 0.5),
        **out_of_fold.side_by_side(name, systems),
    }
    shown = {
        **confusion(yes.astype(int), said.astype(int), ("not 5", "5")),
        "note": OUT_OF_FOLD,
        "figures": figures,
    }
    return Outcome(aucs, seconds, facts, shown, of_folds=True)


def forest(dataset: str, settings: Settings) -> Outcome:
    """Return the test accuracy of 200 trees, each on half of the examples."""
    found = load(dataset, settings)
    trees = [
        RandomForestClassifier(200, max_samples=0.5, n_jobs=-1, random_state=seed)
        for seed in range(settings.seeds)
    ]
    runs = [_fit_and_test(classifier, found) for classifier in trees]
    return Outcome(
        [one.values[0] for one in runs],
        statistics.median(one.seconds or 0.0 for one in runs),
        shown={**runs[0].shown, "note": of_seed(0, settings.seeds)},
        examples=np.mean([one.examples for one in runs if one.examples], axis=0).tolist(),
    )


def svc(dataset: str, settings: Settings) -> Outcome:
    """Return the test accuracy of the exact RBF machine, one versus one, on all examples."""
    return _fit_and_test(SVC(), load(dataset, settings))


def svc_one_vs_rest(dataset: str, count: int, settings: Settings) -> Outcome:
    """Return the same, one versus rest, on the first `count` examples."""
    found = load(dataset, settings)
    part = found._replace(
        train_images=found.train_images[:count], train_labels=found.train_labels[:count]
    )
    with joblib.parallel_config("threading"):  # as fast as processes, which start slowly
        return _fit_and_test(OneVsRestClassifier(SVC(), n_jobs=-1), part)


def boosting_kaggle(settings: Settings) -> Outcome:
    """Return the test accuracy of gradient boosting, which has no seed."""
    trees = 10 if settings.quick else 100
    classifier = HistGradientBoostingClassifier(max_iter=trees, random_state=0)
    return _fit_and_test(classifier, load(KAGGLE, settings))


svc_mnist, svc_kaggle = partial(svc, "mnist"), partial(svc, KAGGLE)
forest_kaggle = partial(forest, KAGGLE)
svc_one_vs_rest_mnist = partial(svc_one_vs_rest, "mnist", 10_000)


def _fit_and_test(classifier: Any, found: datasets.Dataset) -> Outcome:
    """Return the test accuracy in percent, and the seconds of training."""
    start = time.perf_counter()
    classifier.fit(flat(found.train_images), found.train_labels)
    seconds = time.perf_counter() - start
    predicted: Int[np.ndarray, " n"] = classifier.predict(flat(found.test_images))
    right = 100.0 * (predicted == found.test_labels)
    shown = confusion(found.test_labels, predicted, found.class_names)
    return Outcome([float(right.mean())], seconds, shown=shown, examples=right.tolist())
