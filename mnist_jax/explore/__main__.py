"""Explore a data set on one page: `python -m mnist_jax.explore --dataset=fashion_mnist`."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mnist_jax.runtime import exits, output
from mnist_jax.runtime.arguments import Parser
from mnist_jax.types import UserError, printable


@exits.command
def main(argv: Sequence[str]) -> int:
    """Write the page of a data set and return the exit code."""
    parser = Parser(
        prog="python -m mnist_jax.explore",
        description="Show a data set on one self-contained HTML page.",
    )
    add = parser.add_argument
    add("--dataset", required=True, metavar="NAME",
        help="mnist, fashion_mnist, digits, csv:PATH, images:DIR or a tfds builder")  # fmt: skip
    add("--out", type=Path, metavar="FILE", help="default: runs/explore-NAME.html")
    add("--data_dir", metavar="DIR", help="as config.data.data_dir")
    add("--archives", metavar="DIR", help="as config.data.archives")
    add("--label_column", choices=("first", "last"), help="as config.data.label_column")
    add("--pixel_max", type=int, metavar="N", help="as config.data.pixel_max")
    add("--transposed", action="store_true", default=None, help="as config.data.transposed")
    options = parser.parse(argv)
    # Imported here because JAX and Matplotlib take a second, which --help and errors do not need.
    from mnist_jax.data import datasets
    from mnist_jax.explore import explore_page
    from mnist_jax.runtime import provenance
    from mnist_jax.workdir import files

    out = options.out or Path("runs", f"explore-{datasets.file_name(options.dataset)}.html")
    form = datasets.Format(options.label_column, options.pixel_max, options.transposed)
    dataset = datasets.load(
        options.dataset, form, data_dir=options.data_dir, archives=options.archives, log=output.say
    )
    if len(dataset.train_labels) < 2:
        raise UserError(f"{dataset.name}: has only one training image; explore needs two or more")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"{out}: cannot be written ({reason}); give another --out") from error
    command = shlex.join(["python", "-m", "mnist_jax.explore", *argv])
    versions, revision = provenance.versions(), provenance.git_revision()
    page = explore_page.render(dataset, command=command, versions=versions, revision=revision)
    files.write(out, page)
    train, test = len(dataset.train_labels), len(dataset.test_labels)
    line = f"{dataset.name}: {train:,} images to train, {test:,} to test  page: {out}"
    output.say(printable(line))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
