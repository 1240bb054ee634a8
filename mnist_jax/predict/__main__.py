"""Classify pictures with a trained net: `python -m mnist_jax.predict --workdir=RUN IMAGES...`."""

import argparse
import glob
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from mnist_jax.runtime import backend, exits, output
from mnist_jax.runtime.arguments import Parser
from mnist_jax.types import UserError
from mnist_jax.workdir import files

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
    # Imported here because JAX takes a second, which --help and errors do not need.
    backend.check()
    from mnist_jax.data import photos
    from mnist_jax.predict import classifier, predict_page
    from mnist_jax.runtime import xla

    xla.enable_cache()
    net = classifier.load(options.workdir, output.warn)
    paths, failed = find(options.images)
    images = {}
    for path in paths:
        try:
            images[path] = net.read(path)
        except photos.PictureError as error:
            failed.append(_readable(str(error)))
    for message in failed:
        output.warn(message)
    answer = net.answer(np.array([*images.values()], np.uint8).reshape(-1, 28, 28, 1))
    seen = [
        predict_page.Seen(_readable(str(path)), image, probabilities, bool(strange))
        for (path, image), probabilities, strange in zip(images.items(), *answer, strict=True)
    ]
    names = net.class_names
    rows = [predict_page.row(one, names) for one in seen]
    _write(options.json, files.to_json(rows))
    _write(options.csv, predict_page.to_csv(rows, names))
    if options.page:
        page = predict_page.page(
            seen,
            (photos.read(path) for path in images),
            failed,
            summary=files.read_summary(options.workdir),
            config=files.read_config(options.workdir)[0].to_dict(),
            command=_readable(shlex.join(["python", "-m", "mnist_jax.predict", *argv])),
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
    """Return the pictures named by files, folders and globs, and a message per empty name."""
    from PIL import Image

    kinds = {end for end, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    paths: dict[Path, None] = {}  # in order, each once
    failed = []
    for name in names:
        path, found, none = Path(name), [], "holds no pictures"
        if path.is_dir():
            try:
                found = sorted(p for p in path.iterdir() if p.suffix.lower() in kinds)
            except OSError as error:
                none = f"cannot be read ({error.strerror})"
        elif path.exists() or not glob.has_magic(name):
            found = [path]
        else:
            matches = glob.glob(name, recursive=True)  # noqa: PTH207 (Path's takes no absolute ones)
            found, none = sorted(map(Path, matches)), "matches no file"
        paths |= dict.fromkeys(found)
        if not found:
            failed.append(_readable(f"{name}: {none}"))
    return list(paths), failed


def _readable(text: str) -> str:
    """Replace the bytes of file names that are not Unicode, so that the text can be printed."""
    return os.fsencode(text).decode(errors="replace")


def _parser() -> Parser:
    parser = Parser(
        prog="python -m mnist_jax.predict",
        description="Classify your pictures with a trained net: one digit or object per picture, "
        "drawn or photographed, dark on light or light on dark, with paper around it.",
    )
    add = parser.add_argument
    add("images", nargs="+", metavar="IMAGES", help="files, folders, quoted globs")
    add("--workdir", required=True, type=Path, metavar="RUN", help="a finished run")
    add("--top", type=int, default=3, metavar="N", help="how many classes to name (default: 3)")
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
