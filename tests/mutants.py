"""Mutation testing of the pure packages: `make mutants`.

Change one operator, number, comparison, condition, loop or decorator of the code at a time and run
the tests of that code. Tests that still pass have not detected the change: it survives. The
mutants come from cosmic-ray. `--count` places are drawn at random, and one mutant at each place, so
that an operator with a dozen replacements does not count more than a number with two. Annotations
are left out; mypy checks them.

Each result is a line of FOLDER/mutants.jsonl; the same command again continues after the last one.
"""

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue
from typing import NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names
from tqdm import tqdm

ROOT = Path(__file__).parent.parent

# The mutated files, and the tests that they must fail; the quickest come first.
TESTS = {
    "mnist_jax/analysis/*.py": "analysis runs/test_summary.py report/test_error_plots.py "
    "report/test_threshold_plots.py runs/test_results.py compare",
    "mnist_jax/data/augment.py": "data/test_augment.py train/test_step.py "
    "experiments/test_experiments_augmentation.py",
    "mnist_jax/models/conv.py": "models/test_conv.py models/test_winograd.py "
    "models/test_networks.py",
    "mnist_jax/runs/select.py": "runs/test_select.py runs/test_training_sweeps.py",
    "mnist_jax/train/*.py": "train test_tasks.py runs/test_loop.py runs/test_training.py "
    "runs/test_training_divergence.py runs/test_evaluation.py",
}
_SECONDS = 900  # then the tests are killed, and count as failed


class Mutant(NamedTuple):
    """One change of one file."""

    path: str  # relative to the root
    line: int
    operator: str
    occurrence: int  # of the operator in the file
    tests: str


def candidates(path: Path, tests: str) -> dict[tuple, list[Mutant]]:
    """Return the mutants of a file by place, without annotations."""
    source = path.read_text()
    left_out = _annotations(source)
    places: dict[tuple, list[Mutant]] = {}
    tree = get_ast(source)
    for name in sorted(operator_names()):
        kind = get_operator(name)
        if kind.arguments():
            continue
        operator = kind()
        spots = (spot for node in ast_nodes(tree) for spot in operator.mutation_positions(node))
        for occurrence, (start, end) in enumerate(spots):
            if not any(a <= start and end <= b for a, b in left_out):
                where = str(path.relative_to(ROOT))
                mutant = Mutant(where, start[0], name, occurrence, tests)
                places.setdefault((where, start, end), []).append(mutant)
    return places


def _annotations(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return where each annotation starts and ends: line and column."""
    found = []
    for node in ast.walk(ast.parse(source)):
        for field in ("annotation", "returns"):
            if (note := getattr(node, field, None)) is not None:
                start = (note.lineno, note.col_offset)
                found.append((start, (note.end_lineno, note.end_col_offset)))
    return found


def drawn(count: int, seed: int) -> list[Mutant]:
    """Draw `count` places at random, and one mutant at each."""
    places: dict[tuple, list[Mutant]] = {}
    for pattern, tests in TESTS.items():
        for path in sorted(ROOT.glob(pattern)):
            own = f"{path.parent.name}/test_{path.stem}.py"
            first = f"{own} " if (ROOT / "tests" / own).exists() and own not in tests else ""
            places |= candidates(path, first + tests)
    rng = random.Random(seed)
    chosen = rng.sample(sorted(places), min(count, len(places)))
    return [rng.choice(places[place]) for place in chosen]


def tested(mutant: Mutant, root: Path, programs: Path) -> dict:
    """Change a copy of the project, run the tests there and undo the change."""
    path = root / mutant.path
    source = path.read_text()
    changed = mutate_code(source, get_operator(mutant.operator)(), mutant.occurrence)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider"]
    command += ["--hypothesis-seed=0", *(f"tests/{name}" for name in mutant.tests.split())]
    environment = {
        **os.environ,
        "PYTHONPATH": str(root),
        "JAX_COMPILATION_CACHE_DIR": str(programs),
    }
    started = time.monotonic()
    path.write_text(changed)
    try:
        process = subprocess.Popen(
            command,
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            output, _ = process.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
    finally:
        path.write_text(source)
    diff = difflib.unified_diff(source.splitlines(), changed.splitlines(), lineterm="", n=0)
    failed = [line for line in output.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return {
        **mutant._asdict(),
        "diff": list(diff)[3:],
        "survived": process.returncode == 0,
        "by": failed[:1] or output.splitlines()[-1:],
        "seconds": round(time.monotonic() - started, 1),
    }


def _copy(pattern: str, folder: Path) -> None:
    """Copy files and folders of the project, without what Python has compiled."""
    for path in ROOT.glob(pattern):
        if path.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(path, folder / path.name, ignore=ignored)
        else:
            folder.mkdir(exist_ok=True)
            shutil.copy(path, folder)


def main() -> int:
    """Test a sample of mutants and print those that survive."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200, help="mutants (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample (0)")
    parser.add_argument("--folder", type=Path, default=ROOT / "build", help="of the results")
    parser.add_argument("--workers", type=int, default=2, help="processes (2)")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    kept = options.folder / "mutants.jsonl"
    lines = kept.read_text().splitlines() if kept.exists() else []
    mutants = drawn(options.count, options.seed)
    keys = {mutant[:4] for mutant in mutants}
    results = {}
    for line in map(json.loads, lines):
        key = tuple(line[field] for field in Mutant._fields[:4])
        if key in keys:
            results[key] = line
    left = [mutant for mutant in mutants if mutant[:4] not in results]
    with tempfile.TemporaryDirectory(prefix="mnist_jax-mutants-") as folder:
        copies: Queue[Path] = Queue()
        for i in range(options.workers):
            copies.put(Path(folder) / f"{i}")
            for part in ("mnist_jax", "configs", "experiments", "tests", "docs", "*.md", "*.toml"):
                _copy(part, Path(folder) / f"{i}")

        def test(mutant: Mutant) -> dict:
            copy = copies.get()
            try:
                return tested(mutant, copy, Path(folder) / "programs")
            finally:
                copies.put(copy)

        with ThreadPoolExecutor(options.workers) as pool, kept.open("a") as file:
            jobs = [pool.submit(test, mutant) for mutant in left]
            for job in tqdm(as_completed(jobs), "mutants", len(jobs)):
                result = job.result()
                results[tuple(result[field] for field in Mutant._fields[:4])] = result
                print(json.dumps(result), file=file, flush=True)
    survivors = [result for result in results.values() if result["survived"]]
    for result in sorted(survivors, key=lambda result: (result["path"], result["line"])):
        print(f"\n{result['path']}:{result['line']}", *result["diff"], sep="\n")
    detected = len(results) - len(survivors)
    print(f"\n{detected} of {len(results)} mutants are detected ({detected / len(results):.1%})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
