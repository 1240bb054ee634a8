"""What scikit-learn does best: forests and exact support vector machines, as references."""

import time
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import precision_score, recall_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import SVC

from experiments.systems.nets import KAGGLE, kaggle
from experiments.systems.row import Outcome, Settings, confusion
from mnist_jax import data


def load(dataset: str, settings: Settings) -> data.Dataset:
    """A study's data set; of digits when it is to be quick."""
    name = settings.dataset(dataset)
    return data.load(f"csv:{kaggle(settings.folder)}" if name == KAGGLE else name)


def flat(images: Any) -> Float[np.ndarray, "n pixels"]:
    """Rows of pixels in [0, 1]."""
    return images.reshape(len(images), -1).astype(np.float32) / 255


def forest_of_a_5(settings: Settings) -> Outcome:
    """Out-of-fold probabilities that it is a 5, of 100 trees: ROC AUC."""
    found = load("mnist", settings)
    yes = found.train_labels == 5
    forest = RandomForestClassifier(n_jobs=-1, random_state=0)
    folds = StratifiedKFold(3)
    start = time.perf_counter()
    chances = cross_val_predict(
        forest, flat(found.train_images), yes, cv=folds, method="predict_proba"
    )[:, 1]
    said = chances >= 0.5
    facts = {
        "precision": 100 * precision_score(yes, said),
        "recall": 100 * recall_score(yes, said),
    }
    auc = 100 * roc_auc_score(yes, chances)
    seconds = time.perf_counter() - start
    shown = confusion(yes.astype(int), said.astype(int), ("not 5", "5"))
    return Outcome([auc], seconds, facts, shown)


def forest(dataset: str, settings: Settings) -> Outcome:
    """Test accuracy of 200 trees, each on half of the examples."""
    found = load(dataset, settings)
    trees = [
        RandomForestClassifier(200, max_samples=0.5, n_jobs=-1, random_state=seed)
        for seed in range(settings.seeds)
    ]
    runs = [_fit_and_test(classifier, found) for classifier in trees]
    return Outcome(
        [one.values[0] for one in runs],
        min(one.seconds or 0.0 for one in runs),
        shown=runs[0].shown,
    )


def svc(dataset: str, settings: Settings) -> Outcome:
    """Test accuracy of the exact RBF machine, one versus one, on all examples."""
    return _fit_and_test(SVC(), load(dataset, settings))


def svc_one_vs_rest(dataset: str, count: int, settings: Settings) -> Outcome:
    """The same, one versus rest, on the first so many examples."""
    found = load(dataset, settings)
    part = found._replace(
        train_images=found.train_images[:count], train_labels=found.train_labels[:count]
    )
    return _fit_and_test(OneVsRestClassifier(SVC(), n_jobs=-1), part)


svc_mnist, svc_kaggle = partial(svc, "mnist"), partial(svc, KAGGLE)
forest_kaggle = partial(forest, KAGGLE)
svc_one_vs_rest_mnist = partial(svc_one_vs_rest, "mnist", 10_000)


def _fit_and_test(classifier: Any, found: data.Dataset) -> Outcome:
    """Test accuracy in percent, and the seconds of training."""
    start = time.perf_counter()
    classifier.fit(flat(found.train_images), found.train_labels)
    seconds = time.perf_counter() - start
    predicted: Int[np.ndarray, " n"] = classifier.predict(flat(found.test_images))
    accuracy = 100 * float((predicted == found.test_labels).mean())
    shown = confusion(found.test_labels, predicted, found.class_names)
    return Outcome([accuracy], seconds, shown=shown)
