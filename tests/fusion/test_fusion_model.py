"""Models that are saved, loaded, shared, and damaged on the way."""

import json
import pickle
import shutil
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from drawn_run import CLASSES, drawn_features, drawn_run
from huggingface_hub import HfApi, ModelCard, constants
from memory_store import MemoryStore, moving_dot

from tca.errors import TcaError
from tca.fusion.evaluate.scoring import evaluate
from tca.fusion.model import fusion_model
from tca.fusion.model.fusion_model import FusionModel
from tca.fusion.model.registry import OWN, parameters


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    FusionModel.from_run(drawn_run(folder / "run")).save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    shutil.copytree(saved, tmp_path / "copy")
    return tmp_path / "copy"


def scores(model: FusionModel, keep: str = "frames") -> torch.Tensor:
    given = drawn_features(keep, 3)
    with torch.no_grad():
        return model(given["semantic"], given["motion"])


def refusal(folder: Path) -> str:
    with pytest.raises(TcaError) as caught:
        FusionModel.from_pretrained(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize("keep", ["frames", "mean"])
@pytest.mark.parametrize("variant", OWN)
def test_every_variant_comes_back_bit_by_bit(tmp_path: Path, variant: str, keep: str) -> None:
    run = drawn_run(tmp_path / "run", variant, keep)
    model = FusionModel.from_run(run)
    assert not model.training
    expected = scores(model, keep)
    assert expected.shape == (3, 4)
    assert not torch.equal(expected, scores(FusionModel.from_run(run, "last"), keep))
    model.save_pretrained(tmp_path / "model")
    loaded = FusionModel.from_pretrained(str(tmp_path / "model"))
    assert not loaded.training
    assert torch.equal(scores(loaded, keep), expected)
    # Read by the library itself, without us and without torch.
    arrays = safetensors.numpy.load_file(tmp_path / "model/model.safetensors")
    state = {f"network.{name}": some for name, some in model.network.state_dict().items()}
    assert arrays.keys() == state.keys()
    assert all(np.array_equal(arrays[name], state[name].numpy()) for name in arrays)
    loaded.save_pretrained(tmp_path / "again")
    for file in ("model.safetensors", "config.json", "README.md"):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "model" / file).read_bytes()


def test_the_configuration_is_plain_json_and_says_it_all(saved: Path) -> None:
    def no_number(text: str) -> None:
        raise AssertionError(text)

    text = (saved / "config.json").read_text()
    config = json.loads(text, parse_constant=no_number)
    assert config["classes"] == CLASSES
    assert config["model"]["variant"] == "gasm_cast"
    assert config["shapes"]["grid"] == [4, 4]
    assert config["identity"]["semantic"] == {"weights": "a"}
    assert config["precision"] == "float32"
    assert config["record"]["checkpoint"] == "best"


def test_the_card_is_filled_in(tmp_path: Path) -> None:
    run = drawn_run(tmp_path / "run")
    found = {"checkpoint": "best", "split": "validation", "videos": 40, "top1": 0.5, "top5": None}
    (run / "evaluation-validation.json").write_text(json.dumps(found))
    (run / "evaluation-test.json").write_text(json.dumps(found | {"checkpoint": "last"}))
    (run / "evaluation-train.json").write_text("{")
    model = FusionModel.from_run(run)
    model.save_pretrained(tmp_path / "model")
    card = ModelCard.load(tmp_path / "model/README.md")
    assert card.data.library_name == "tca"
    assert card.data.pipeline_tag == "video-classification"
    assert f"{parameters(model):,}" in card.text
    assert "| validation | 40 | 0.500 | - |" in card.text
    assert "| test |" not in card.text
    assert "(B, 8, 16, 12)" in card.text
    assert "0 pushing “it”\n1 pulling it\n" in card.text
    assert "weights: a" in card.text
    assert "lr: 0.001" in card.text
    assert "{{" not in card.text


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


def test_nothing_is_unpickled(copy: Path, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    bomb = pickle.dumps(Bomb(mark))
    (copy / "pytorch_model.bin").write_bytes(bomb)
    FusionModel.from_pretrained(copy)
    (copy / "model.safetensors").unlink()
    assert "has no model.safetensors" in refusal(copy)
    (copy / "model.safetensors").write_bytes(bomb)
    assert "damaged" in refusal(copy)
    assert not mark.exists()
    pickle.loads(bomb)
    assert mark.exists()


@pytest.mark.parametrize(
    "count", [60, pytest.param(1500, marks=pytest.mark.long)], ids=["some", "many"]
)
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_flipped_bits_are_found(copy: Path, saved: Path, name: str, count: int) -> None:
    sound = (copy / name).read_bytes()
    expected = FusionModel.from_pretrained(saved).state_dict()
    generator = np.random.default_rng(5)
    refused = 0
    # The header of the weights is short, and more can go wrong in it.
    ends = [len(sound)] if name == "config.json" else [len(sound), 3000]
    for number in range(count):
        damaged = bytearray(sound)
        damaged[generator.integers(ends[number % len(ends)])] ^= 1 << generator.integers(8)
        (copy / name).write_bytes(damaged)
        try:
            loaded = FusionModel.from_pretrained(copy)
        except TcaError:
            refused += 1
        else:
            # A name or a setting that no weight depends on, or what marks the sum.
            found = loaded.state_dict()
            assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert refused > count * (0.9 if name == "model.safetensors" else 0.3)


def test_truncated_files_are_found(copy: Path) -> None:
    for name in ("model.safetensors", "config.json"):
        sound = (copy / name).read_bytes()
        for size in (0, 5, len(sound) // 2, len(sound) - 2):
            (copy / name).write_bytes(sound[:size])
            assert name in refusal(copy)
        (copy / name).write_bytes(sound)
    (copy / "config.json").unlink()
    assert "config.json (No such file or directory)" in refusal(copy)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"variant": "gasm_cats"}}, "'gasm_cats' is none of gasm_cast, bcast"),
        ({"model": {"layers": 0}}, "'model.layers' to 0: input should be greater than"),
        ({"model": {"wings": 2}}, "unknown key 'model.wings'"),
        ({"model": []}, "sets 'model' to []"),
        ({"classes": "abcd"}, "'classes' to 'abcd': input should be a valid list"),
        ({"classes": [1, 2, 3, 4]}, "'classes.0' to 1: input should be a valid string"),
        ({"classes": []}, "'classes' to []"),
        ({"identity": None}, "'identity'"),
        ({"shapes": {"segments": 8}}, "lacks the key 'shapes.grid'"),
        ({"scores": [{"split": "test"}]}, "lacks the key 'scores.0.videos'"),
        ({"feathers": 1}, "unknown key 'feathers'"),
    ],
)
def test_a_configuration_that_is_none_is_one_sentence(
    copy: Path, change: dict[str, Any], said: str
) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | change))
    text = refusal(copy)
    assert said in text
    assert str(copy) in text
    assert "save it again" in text


@pytest.mark.parametrize("text", ["[]", "null", "[" * 100_000, "\xff"])
def test_other_json_is_one_sentence(copy: Path, text: str) -> None:
    (copy / "config.json").write_text(text, encoding="latin-1")
    assert "is damaged" in refusal(copy)


def test_weights_of_another_model_are_named(copy: Path) -> None:
    file = copy / "model.safetensors"
    sound = safetensors.torch.load_file(file)
    name = "network.head.classify.bias"

    def told(changed: dict[str, torch.Tensor]) -> str:
        safetensors.torch.save_file(changed, file)
        return refusal(copy)

    assert f"{name}: expected 'torch.float32 (4,)', found nothing" in told(
        {key: some for key, some in sound.items() if key != name}
    )
    assert "more: expected nothing" in told(sound | {"more": torch.zeros(2)})
    assert f"{name}: expected 'torch.float32 (4,)', found 'torch.float32 (5,)'" in told(
        sound | {name: torch.zeros(5)}
    )
    assert "found 'torch.float16 (4,)'" in told(sound | {name: sound[name].half()})
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"classes": CLASSES[:3]}))
    assert "head.classify.weight: expected 'torch.float32 (3," in told(sound)


def fitting(**changes: Any) -> MemoryStore:
    identity = {"keep": "frames", "semantic": {"weights": "a"}, "motion": {"weights": "b"}}
    store = moving_dot(24, split="validation", identity=identity | changes)
    store.classes = list(CLASSES)
    return store


def test_a_store_of_other_features_is_refused(saved: Path) -> None:
    model = FusionModel.from_pretrained(saved)
    model.require_store(fitting(), "it")

    def told(store: MemoryStore) -> str:
        with pytest.raises(TcaError) as caught:
            model.require_store(store, "this model")
        return str(caught.value)

    other = fitting(semantic={"weights": "c"}, keep="mean")
    other.classes[1] = "pulling them"
    other.motion = other.motion[:, :, :5]
    text = told(other)
    assert "does not fit this model" in text
    assert "classes: entry 1 is expected 'pulling it', found 'pulling them'" in text
    assert "keep: expected 'frames', found 'mean'" in text
    assert "semantic.weights: expected 'a', found 'c'" in text
    assert "motion_width: expected 6, found 5" in text
    alone = fitting()
    del alone.streams["motion"]
    assert "this model reads it" in told(alone)


def test_a_model_of_one_stream_asks_for_that_stream_alone(tmp_path: Path) -> None:
    model = FusionModel.from_run(drawn_run(tmp_path / "run", "semantic_only"))
    other = fitting(motion={"weights": "c"})
    other.motion = other.motion[:, :, :5]
    model.require_store(other, "it")
    assert model.input_shapes == {"semantic": (8, 16, 12)}


def test_a_saved_model_is_scored_as_its_run(tmp_path: Path) -> None:
    run = drawn_run(tmp_path / "run")
    FusionModel.from_run(run, "last").save_pretrained(tmp_path / "model")
    expected = evaluate(run, fitting(), "last", device="cpu")
    result = evaluate(tmp_path / "model", fitting(), "last", device="cpu")
    assert np.array_equal(result.probability, expected.probability)
    with pytest.raises(TcaError, match="holds the last checkpoint alone; add --checkpoint last"):
        evaluate(tmp_path / "model", fitting())


def test_a_flipped_weight_of_a_run_is_found(tmp_path: Path) -> None:
    run = drawn_run(tmp_path / "run")
    sound = (run / "best.safetensors").read_bytes()
    (run / "best.safetensors").write_bytes(sound[:-5] + bytes([sound[-5] ^ 1]) + sound[-4:])
    with pytest.raises(TcaError, match=r"best\.safetensors is damaged .*; train again"):
        FusionModel.from_run(run)


def test_it_goes_to_the_hub_and_comes_back(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = tmp_path / "hub"

    def create_repo(api: HfApi, repo_id: str, **options: Any) -> Any:
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(api: HfApi, *, repo_id: str, folder_path: Path, **options: Any) -> str:
        shutil.copytree(folder_path, hub / repo_id)
        return f"commit of {repo_id}"

    def snapshot_download(repo_id: str, *, allow_patterns: list[str], **options: Any) -> str:
        assert options["revision"] == "v1"
        assert all(not name.endswith(".bin") for name in allow_patterns)
        return str(hub / repo_id)

    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    monkeypatch.setattr(fusion_model, "snapshot_download", snapshot_download)
    model = FusionModel.from_pretrained(saved)
    assert model.push_to_hub("someone/a-model") == "commit of someone/a-model"
    assert sorted(file.name for file in (hub / "someone/a-model").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
    ]
    assert 'from_pretrained("someone/a-model")' in (hub / "someone/a-model/README.md").read_text()
    loaded = FusionModel.from_pretrained("someone/a-model", revision="v1")
    assert torch.equal(scores(loaded), scores(model))


class FakeHub(BaseHTTPRequestHandler):
    """Answers every request with the error that its path names."""

    ANSWERS: ClassVar = {
        "missing": (404, "RepoNotFound"),
        "gated": (403, "GatedRepo"),
        "revision": (404, "RevisionNotFound"),
    }

    def do_GET(self) -> None:
        name = next((name for name in self.ANSWERS if name in self.path), "missing")
        code, word = self.ANSWERS[name]
        self.send_response(code)
        self.send_header("X-Error-Code", word)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.send_response(403)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


def test_what_the_hub_answers_is_one_sentence(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    model = FusionModel.from_pretrained(saved)

    def told(place: str) -> str:
        with pytest.raises(TcaError) as caught:
            FusionModel.from_pretrained(place, cache_dir=tmp_path / "cache", token=False)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "the hub has no model of that name" in told("someone/missing")
    assert "is gated: accept its terms" in told("someone/gated")
    assert "has no such revision" in told("someone/revision")
    assert "it is no hub id" in told("some/folder/deep")
    with pytest.raises(TcaError, match=r"the hub refuses a/b .*`hf auth login`"):
        model.push_to_hub("a/b", token="hf_none")
    server.shutdown()
    server.server_close()
    assert "the hub does not answer" in told("someone/missing")
    with pytest.raises(TcaError, match=r"a/b cannot be uploaded .*; connect and push again"):
        model.push_to_hub("a/b", token="hf_none")
    with pytest.raises(TcaError, match="a/b/c is no hub id"):
        model.push_to_hub("a/b/c", token="hf_none")
