"""One small demo for all tests of this folder, and one whose frames are shuffled."""

import pytest
import yaml
from demo_data import DemoData

from tca.demo.demo import DemoResult, run_demo
from tca.demo.render import render_data_set
from tca.demo.settings import SETTINGS
from tca.extract.run import extract
from tca.project import load_project

TRAIN, VALIDATION = 216, 120


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> DemoResult:
    """The demo with fewer clips."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    return run_demo(folder, train_clips=TRAIN, validation_clips=VALIDATION)


@pytest.fixture(scope="session")
def ordered(demo: DemoResult) -> DemoData:
    """What `demo` extracted."""
    return DemoData.open(demo.folder)


@pytest.fixture(scope="session")
def disordered(tmp_path_factory: pytest.TempPathFactory) -> DemoData:
    """The same scenes, the frames of every clip in a random order before they are written."""
    folder = tmp_path_factory.mktemp("disordered")
    render_data_set(folder, train=156, validation=VALIDATION, seed=0, shuffle_frames=True)
    (folder / "tca.yaml").write_text(yaml.safe_dump(SETTINGS))
    project, _ = load_project(folder / "tca.yaml", ())
    for split in ("train", "validation"):
        store = project.store(split)
        extract(split, store, project, devices=["cpu"], folder=folder, allow_missing=True)
    return DemoData.open(folder)
