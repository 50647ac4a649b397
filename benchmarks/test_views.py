"""What more test views of a video are worth: models of a cross-validation, each on its own fold.

`extract.views.test` is a choice like any other, and the validation clips must not make it. So the
training clips are extracted a second time as a validation split is, with even views; each model of
`tca train-fusion --folds` scores the clips that it has not seen, by the first views alone, then by
one more, and so on.

    tca train-fusion --folds 5 --run runs/cv
    tca extract --config even.yaml   # the same but: annotations: {validation: TRAIN.json}, stores
    python benchmarks/test_views.py runs/cv cache/train.zarr even/validation.zarr
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
import numpy as np

from tca.cache.config import LoaderConfig
from tca.cache.residency import open_source
from tca.cache.store import Store
from tca.console import print_table
from tca.device import choose_device
from tca.errors import TcaError
from tca.fusion.evaluate.scoring import load_model, predict
from tca.fusion.rows import labelled_rows, split_folds


@click.command(help=__doc__)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("store_path", type=click.Path(path_type=Path))
@click.argument("even_path", type=click.Path(path_type=Path))
def main(run: Path, store_path: Path, even_path: Path) -> None:
    store, even = Store.open(store_path), Store.open(even_path)
    rows, even_rows = labelled_rows(store), labelled_rows(even)
    views = int(even.view[even_rows].max()) + 1
    folders = sorted(run.glob("fold-*"), key=lambda folder: int(folder.name.split("-")[1]))
    seed = json.loads((folders[0] / "run.json").read_text())["seed"]["data"]
    device = choose_device("auto")
    right: list[list[float]] = [[] for _ in range(views)]
    parts = split_folds(store, rows, len(folders), seed)
    for folder, (_, fold) in zip(folders, parts, strict=True):
        model = load_model(folder)
        ids = {store.ids[row] for row in fold}
        unseen = np.asarray([row for row in even_rows if even.ids[row] in ids])
        source = open_source(even, unseen, model.network.streams, LoaderConfig(), device)
        probability = predict(model.network, source, unseen, model.saved.precision)
        videos, of_row = np.unique(even.video[unseen], return_inverse=True)
        label = np.zeros(len(videos), dtype=np.int64)
        label[of_row] = even.label[unseen]
        summed = np.zeros((len(videos), probability.shape[1]))
        for view in range(views):
            now = even.view[unseen] == view
            np.add.at(summed, of_row[now], probability[now])
            right[view].append(float(np.mean(summed.argmax(1) == label)))
    table = [
        [number, f"{np.mean(shares):.3f}", f"{np.std(shares):.3f}"]
        for number, shares in enumerate(right, 1)
    ]
    print_table(f"{run} on {even_path}", ["first views", "top-1 of the folds", "spread"], table)


if __name__ == "__main__":
    try:
        main()
    except TcaError as error:
        sys.exit(f"error: {error}")
