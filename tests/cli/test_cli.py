"""The command line as a user types it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from drawn_video import write_video

from tca.cli import COMMANDS, run
from tca.config import read_yaml
from tca.errors import UsageError
from tca.extract.backbones.registry import weights_of
from tca.project import load_project, resolved

CONFIG = """
data:
  videos: videos
  labels: labels.json
  annotations: {train: train.json, validation: validation.json}
semantic:
  weights: random:0
  sizes: {hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}
  size: 32
  keep: frames
motion: {weights: random:0, blocks: [1, 1, 1, 1], size: 16}
extract: {batch_size: 4}
model: {heads: 2, bottleneck: 8, layers: 1, rank: 4}
train: {epochs: 2, holdout: 0.25, device: cpu}
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set of two classes and its tca.yaml."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "videos").mkdir()
    for number in range(18):
        write_video(folder / f"videos/{number}.webm", 16 + number)
    classes = ["Moving something up", "Moving something down"]
    (folder / "labels.json").write_text(json.dumps({n: str(i) for i, n in enumerate(classes)}))
    for split, ids in (("train", range(12)), ("validation", range(12, 18))):
        entries = [{"id": str(n), "template": classes[n % 2]} for n in ids]
        (folder / f"{split}.json").write_text(json.dumps(entries))
    (folder / "tca.yaml").write_text(CONFIG)
    return folder


@pytest.fixture
def project(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(made)
    return made


def test_help_answers_without_torch_and_names_every_command() -> None:
    program = (
        "import sys; from tca.cli import run; code = run(['--help']);"
        "assert code == 0; heavy = {'torch', 'transformers', 'zarr', 'av', 'numpy'};"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "LOADED []" in done.stdout
    for name in COMMANDS:
        assert name in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    groups = {"data": ["check"], "cache": ["info"]}
    assert run([name, *groups.get(name, []), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Example" in shown
    assert f"tca {name}" in shown


def test_the_whole_job_as_it_is_typed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data", "check", "--json"]) == 0
    assert [s["usable"] for s in json.loads(capsys.readouterr().out)["splits"]] == [12, 6]
    assert run(["extract", "--split", "train", "--device", "cpu", "--json"]) == 0
    (summary,) = json.loads(capsys.readouterr().out)
    assert summary["status"] == {"ok": 12}
    assert run(["extract", "--device", "cpu"]) == 0
    shown = capsys.readouterr().out
    assert "none: all were there" in shown
    assert (project / "cache/validation.zarr").is_dir()
    assert run(["cache", "info", "cache/train.zarr", "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["shards"] == {"committed": 2, "total": 2}
    assert run(["cache", "info", "cache/train.zarr"]) == 0
    assert "12 x 8 x 4 x 16 float16" in capsys.readouterr().out
    assert run(["train-fusion", "--json", "train.seed=3"]) == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["run"] == "runs/gasm_cast-001"
    assert (trained["rows"], trained["holdout_rows"]) == (9, 3)
    assert run(["evaluate", "--json"]) == 0
    score = json.loads(capsys.readouterr().out)
    assert (score["run"], score["videos"]) == ("gasm_cast-001", 6)
    assert run(["evaluate", "--run", "runs/gasm_cast-001", "--checkpoint", "last"]) == 0
    assert "top-1" in capsys.readouterr().out
    assert run(["train-fusion", "--folds", "2", "train.holdout=0"]) == 0
    assert "mean top-1" in capsys.readouterr().out
    shutil.rmtree(project / "runs/gasm_cast-002/fold-2")
    assert run(["train-fusion", "--resume", "runs/gasm_cast-002"]) == 0
    assert "mean top-1" in capsys.readouterr().out
    assert (project / "runs/gasm_cast-002/fold-2/last.safetensors").is_file()
    assert run(["train-fusion", "--resume", "runs/gasm_cast-002/fold-1"]) == 2
    assert "--resume runs/gasm_cast-002." in capsys.readouterr().err

    assert run(["evaluate", "--run", "runs/gasm_cast-002"]) == 1
    assert "holds a cross-validation" in capsys.readouterr().err

    # The resolved configuration repeats the run from anywhere, whatever flags it was given.
    assert run(["train-fusion", "--select-on", "validation", "--run", "runs/chosen"]) == 0
    assert read_yaml(project / "runs/chosen/config.yaml")["train"]["select_on"] == "validation"
    os.chdir(project / "videos")
    config = str(project / "runs/gasm_cast-001/config.yaml")
    assert run(["train-fusion", "--config", config, "--run", str(project / "runs/again")]) == 0
    first, again = (
        (project / f"runs/{name}/best.safetensors").read_bytes()
        for name in ("gasm_cast-001", "again")
    )
    assert first == again


@pytest.mark.parametrize("stored", ["int8", pytest.param("bfloat16", marks=pytest.mark.long)])
def test_other_formats_and_types_go_all_the_way(
    project: Path, stored: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [f"stores=cache/{stored}/{{split}}.zarr", f"extract.dtype={stored}"]
    assert run(["extract", "--device", "cpu", "--format", "hdf5", *settings]) == 0
    assert (project / f"cache/{stored}/train.h5/index.h5").is_file()
    # Without --format too the store that is there is meant, whatever its name ends in.
    assert run(["extract", "--device", "cpu", *settings]) == 0
    assert "none: all were there" in capsys.readouterr().out
    assert not (project / f"cache/{stored}/train.zarr").exists()
    loader = ["loader.shuffle=blocks", "loader.residency=auto", "loader.checksum=first_epoch"]
    folder = f"runs/{stored}"
    assert run(["train-fusion", "--run", folder, *settings, *loader]) == 0
    assert "loader.residency=auto chose ram" in capsys.readouterr().err
    assert run(["evaluate", "--run", folder, "--json", *settings]) == 0
    assert json.loads(capsys.readouterr().out)["videos"] == 6
    assert run(["train-fusion", *settings, "loader.residency=gpu"]) == 2
    assert "needs a GPU" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["extract", "--gpus", "0,1"], 2, "sees no CUDA GPU on this machine; leave --gpus out"),
        (["extract", "--gpus", "a"], 2, "must be GPU numbers"),
        (["extract", "--gpus", "0", "--device", "cpu"], 2, "exclude each other"),
        (["extract", "--split", "test", "--device", "cpu"], 2, "data.annotations"),
        (["extract", "--split", "nope"], 2, "'nope' is not one of"),
        (["extract", "semantic.kep=mean"], 2, "did you mean 'keep'?"),
        (["extract", "semantic.keep=median"], 2, "semantic.keep"),
        (["extract", "stores=cache/x.zarr"], 2, "must contain {split}"),
        (["extract", "semantic"], 2, "write section.key=value"),
        (["extract", "--config", "none.yaml"], 2, "cannot read the configuration none.yaml"),
        (["train-fusion", "stores=no/{split}.zarr"], 1, "there is no store at no/train.zarr"),
        (["train-fusion", "model.variant=x"], 2, "gasm_cast"),
        (["train-fusion", "--folds", "2", "--select-on", "validation"], 2, "exclude each other"),
        (["evaluate", "runs=none"], 1, "there is no run in none"),
        (["cache", "info", "nowhere"], 1, "there is no store at nowhere"),
        (["frobnicate"], 2, "No such command"),
        (["init", "--data", "videos"], 2, "tca.yaml is there already"),
        (["data", "check", "data.annotations={}"], 2, "no split has annotations"),
        (["extract", "data.videos=~no-such-user/x"], 1, "cannot read the folder '~no-such-user/x'"),
        (
            ["extract", "motion.weights=~no-such-user/x.pth"],
            1,
            "cannot read the weights ~no-such-user/x.pth",
        ),
        (["extract", "train.lr=inf"], 2, "'train.lr' to inf"),
        (["extract", "train.seed=4294967296"], 2, "less than 4294967296"),
        (["extract", "semantic.weights=random:9999999999999999999"], 2, "need a whole number"),
        (["extract", "train=null"], 2, "must be a block of keys (split, select_on, folds"),
        (["extract", "--device", "meta"], 2, "the device 'meta' is not here"),
        (["cache", "info", "a" * 300], 1, "File name too long"),
        (["train-fusion", "--run", "labels.json", "stores=no/{split}"], 1, "there is no store"),
    ],
)
def test_what_a_user_gets_wrong_is_one_sentence(
    project: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    assert run(arguments) == code
    shown = capsys.readouterr().err
    assert says in " ".join(shown.split())
    assert "Traceback" not in shown


def test_output_that_cannot_be_written_is_one_sentence(project: Path) -> None:
    program = "import sys; from tca.cli import run; sys.exit(run(['--help']))"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: cannot use the output: No space left on device")
    assert len(done.stderr.splitlines()) == 1


def test_a_resolved_configuration_finds_local_weights_from_anywhere(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "weights").mkdir()
    loaded, _ = load_project(None, ["semantic.weights=weights"])
    assert resolved(loaded)["semantic"]["weights"] == str(project / "weights")
    monkeypatch.chdir(project.parent)
    loaded, folder = load_project(Path(project.name, "tca.yaml"), ["semantic.weights=weights"])
    assert (folder / loaded.semantic.weights).samefile(project / "weights")
    assert resolved(loaded)["motion"]["weights"] == "random:0"


def test_without_a_configuration_one_sentence_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["extract", "--split", "train"]) == 2
    assert "tca init --data FOLDER" in capsys.readouterr().err


def test_init_writes_what_the_other_commands_read(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for flags in ([], ["--full"]):
        folder = tmp_path / f"project{len(flags)}"
        folder.mkdir()
        monkeypatch.chdir(folder)
        assert run(["init", "--data", str(project), *flags]) == 0
        loaded, _ = load_project(None, ())
        assert loaded.data.annotations["train"].samefile(project / "train.json")
        assert loaded.data.videos.samefile(project / "videos")
        assert weights_of(loaded.semantic).startswith("facebook/dinov3")
    # The full one has every key of the schema.
    tree = read_yaml(folder / "tca.yaml")
    assert set(tree) == set(type(loaded).model_fields)
    for name in ("data", "semantic", "motion", "extract", "model", "train"):
        assert set(tree[name]) == set(type(getattr(loaded, name)).model_fields)


def test_the_example_configurations_are_valid() -> None:
    files = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
    assert files
    for file in files:
        load_project(file, ())
    with pytest.raises(UsageError, match="unknown key 'nope'"):
        load_project(files[0], ["nope=1"])


def test_ctrl_c_is_130_and_says_how_to_go_on(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tca.extract.data_check.check_data", interrupted)
    assert run(["data", "check"]) == 130
    assert "run the same command again: it starts anew" in capsys.readouterr().err
