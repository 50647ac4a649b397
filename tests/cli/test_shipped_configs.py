"""The files of `configs/` are what the documentation tells people to copy."""

from pathlib import Path

import pytest

from tca.project import load_project

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_every_setting_is_one_of_the_schema(file: Path) -> None:
    project, folder = load_project(file, [])
    assert folder == file.parent
    assert project.data.annotations


def test_the_gestures_are_where_their_configuration_says(shared: Path) -> None:
    project, _ = load_project(CONFIGS[0].parent / "gestures.yaml", [])
    files = [project.data.videos, project.data.labels, project.data.flip]
    for path in [*files, *project.data.annotations.values(), Path(project.semantic.weights)]:
        assert path is not None
        assert path.resolve().is_relative_to(shared.resolve())
        assert path.exists()
