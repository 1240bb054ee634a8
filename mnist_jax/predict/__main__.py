"""Classify pictures with a trained net: `python -m mnist_jax.predict --workdir=RUN IMAGES...`."""

import argparse
import glob
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnist_jax.runtime import backend, exits, output
from mnist_jax.runtime.arguments import Parser
from mnist_jax.types import UserError, printable
from mnist_jax.workdir import files

if TYPE_CHECKING:
    from mnist_jax.predict.classifier import Classifier
    from mnist_jax.predict.predict_page import Figure

STDOUT = "-"


@exits.command
def main(argv: Sequence[str]) -> int:
    """Classify the pictures and return the exit code.

    0: success; 1: some pictures could not be used; 2: user error, reported in one line.
    """
    options = _parser().parse(argv)
    if options.top < 1:
        raise UserError(f"--top={options.top}: must be 1 or more")
    if options.json == options.csv == STDOUT:
        raise UserError("--json=- --csv=-: only one of them can be written to stdout")
    if not 0 <= options.min_probability <= 1:
        raise UserError(f"--min-probability={options.min_probability}: must be from 0 to 1")
    # Imported here because JAX takes a second, which --help and errors do not need.
    backend.check()
    from mnist_jax.predict import classifier, predict_page
    from mnist_jax.runtime import xla

    xla.enable_cache()
    net = classifier.load(options.workdir, output.warn)
    paths, failed = find(options.images)
    outputs = {os.path.realpath(o) for o in (options.json, options.csv, options.page) if o}
    paths = [path for path in paths if os.path.realpath(path) not in outputs]
    found, unusable = _read(net, paths, thumbnails=bool(options.page))
    failed += unusable
    for message in failed:
        output.warn(message)
    images = np.array([figure.image for figure in found], np.uint8).reshape(-1, 28, 28, 1)
    seen = [
        predict_page.Seen(*figure, p, bool(strange), bool(p.max() < options.min_probability))
        for figure, p, strange in zip(found, *net.answer(images), strict=True)
    ]
    names = net.class_names
    rows = [predict_page.row(one, names) for one in seen]
    _write(options.json, files.to_json(rows))
    _write(options.csv, predict_page.to_csv(rows, names))
    if options.page:
        page = predict_page.page(
            seen,
            failed,
            summary=files.read_summary(options.workdir),
            config=files.read_config(options.workdir)[0].to_dict(),
            command=printable(shlex.join(["python", "-m", "mnist_jax.predict", *argv])),
        )
        files.write(Path(options.page), page)
    if STDOUT not in (options.json, options.csv):
        shown = output.shows_blocks() if options.show is None else options.show
        width = max((len(one.name) for one in seen), default=0)
        for one in seen:
            line = predict_page.line(one, names, options.top, width)
            output.say(predict_page.drawing(one, names, options.top) if shown else line)
    return 1 if failed else 0


def find(names: Iterable[str]) -> tuple[list[Path], list[str]]:
    """Return the files named by files, folders and globs, and a message per failure.

    Folders are searched with their subfolders. Hidden files in them are left out, others are not:
    only their content shows whether they are pictures.
    """
    paths: dict[Path, None] = {}  # in order, each once
    failed: dict[str, None] = {}
    for name in names:
        matches = [Path(name)]
        if glob.has_magic(name) and not os.path.lexists(name):
            unique: dict[str, str] = {}  # links may lead back: the shortest name counts
            for match in sorted(glob.glob(name, recursive=True), key=len):  # noqa: PTH207 (Path's takes no absolute ones)
                unique.setdefault(os.path.realpath(match), match)
            matches = sorted(map(Path, unique.values()))
        if not matches:
            failed[f"{printable(name)}: matches no file"] = None
        for path in matches:
            if os.path.isdir(path):  # noqa: PTH112 (Path's raises errors)
                found, errors = _files_in(path)
                paths |= dict.fromkeys(found)
                failed |= dict.fromkeys(errors)
            else:
                paths[path] = None
    return list(paths), list(failed)


def _files_in(folder: Path) -> tuple[list[Path], list[str]]:
    """Return the files of a folder and of its subfolders, sorted, and a message per failure."""
    files: list[Path] = []
    errors: list[OSError] = []
    visited: set[str] = set()  # links may lead back
    for parent, folders, names in os.walk(folder, onerror=errors.append, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = [name for name in folders if name[0] != "."]
        files += [Path(parent, name) for name in names if name[0] != "."]
    failed = [f"{printable(e.filename)}: cannot be read ({e.strerror})" for e in errors]
    if not files and not failed:
        failed = [f"{printable(str(folder))}: holds no files"]
    return sorted(files), failed


def _read(
    net: "Classifier", paths: Iterable[Path], *, thumbnails: bool
) -> tuple[list["Figure"], list[str]]:
    """Return the figures in files, and a message per file or page that cannot be used."""
    from mnist_jax.data import image_files
    from mnist_jax.predict import predict_page

    figures: list[predict_page.Figure] = []
    failed = []
    for path in paths:
        try:
            for picture in image_files.read(path):
                thumbnail = predict_page.thumbnail(picture.pixels) if thumbnails else ""
                try:
                    prepared = net.prepare(picture)
                except image_files.PictureError as error:  # this page only
                    failed.append(str(error))
                else:
                    figures += [predict_page.Figure(*one, thumbnail) for one in prepared]
        except image_files.PictureError as error:
            failed.append(str(error))
    return figures, failed


def _parser() -> Parser:
    parser = Parser(
        prog="python -m mnist_jax.predict",
        description="Classify your pictures with a trained net: one digit or object per picture, "
        "or several digits side by side; drawn or photographed, dark on light or light on dark.",
    )
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGES", help="files, folders with subfolders, quoted globs")
    add("--workdir", required=True, type=Path, metavar="RUN", help="a finished run")
    add("--top", type=int, default=3, metavar="N", help="how many classes to name (default: 3)")
    add("--min-probability", type=float, default=0, metavar="P",
        help="answer 'unsure' if no class is as probable (default: 0)")  # fmt: skip
    add("--show", action=argparse.BooleanOptionalAction,
        help="draw the net's input, in half blocks (default: at a terminal)")  # fmt: skip
    add("--json", metavar="FILE", help="write all probabilities as JSON; -: to stdout")
    add("--csv", metavar="FILE", help="write all probabilities as CSV; -: to stdout")
    add("--page", metavar="FILE", help="write a page of all pictures (HTML)")
    return parser


def _write(name: str | None, text: str) -> None:
    if name == STDOUT:
        output.say(text, end="")
    elif name:
        files.write(Path(name), text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
