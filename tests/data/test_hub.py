"""Sources of pretrained models: paths, mistyped paths, and names on the Hub."""

from types import SimpleNamespace

import huggingface_hub
import pytest

from memgpt_jax.data import hub


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """The names that were looked up on the Hub; the working directory has a run `runs/adapt`."""
    (tmp_path / "runs" / "adapt").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    names = []

    def download(name, **options):
        names.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    return names


def unreachable(api, name, **options):
    raise ConnectionError("no network")


def holding(*files):
    def model_info(api, name, **options):
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in files])

    return model_info


@pytest.mark.parametrize(
    "source, message",
    [
        ("runs/adatp", r"there is no runs/adatp \(there is runs/adapt\). The Hub was not queried"),
        ("runs/other", r"there is no runs/other. The Hub was not queried"),
        ("rnus/adapt", r"there is no rnus/adapt \(there is runs/adapt\)"),
        ("run/adpat", r"there is no run/adpat \(there is runs/adapt\)"),
        ("somebody/model.gguf", "looks like a path"),
        ("runz/", "there is no"),
        (
            "./runs/adatp",
            r"there is no folder runs/adatp \(there is runs/adapt\), and names on the Hub are owner/model",
        ),
        ("runs/adapt/deeper/one", "names on the Hub are owner/model"),
        ("~nobody-of-this-name/x", "cannot be opened"),
        ("owner/" + "x" * 5000, "cannot be opened"),
        ("gpt2", "names on the Hub are owner/model"),
    ],
)
def test_a_mistyped_path_is_not_looked_up(source, message, asked):
    with pytest.raises(ValueError, match=message):
        hub.find(source)
    assert not asked


@pytest.mark.parametrize("source, revision", [("HuggingFaceTB/SmolLM2-135M", None), ("runs/adatp", "main")])
def test_other_names_are_looked_up(source, revision, asked):
    hub.find(source, revision)
    ((name, options),) = asked
    assert name == source and options["revision"] == revision
    assert {"generation_config.json", "adapter_config.json", "special_tokens_map.json"} <= {*options["allow_patterns"]}


def test_of_several_gguf_files_none_is_downloaded(asked, monkeypatch):
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", holding("config.json", "a-Q4_1.gguf", "a-Q8_0.gguf"))
    with pytest.raises(ValueError, match=r"several \.gguf files, and none was downloaded: a-Q4_1\.gguf, a-Q8_0\.gguf"):
        hub.find("owner/model")
    assert not asked
    for files, ignored in (
        (("config.json", "model.safetensors", "a.gguf", "b.gguf"), True),
        (("a.gguf",), False),
        (("a.gguf", "other/b.gguf"), False),
    ):
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", holding(*files))
        hub.find("owner/model")
        assert ("*.gguf" in asked.pop()[1]["ignore_patterns"]) == ignored


def test_an_existing_path_is_returned(asked, tmp_path):
    assert hub.find("runs/adapt").samefile(tmp_path / "runs" / "adapt") and not asked


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("config.json", True),
        ("chat_template.jinja", True),
        ("vocab.json", True),
        ("model-00001-of-00002.safetensors", True),
        ("onnx/model.safetensors", False),
        ("consolidated.00.safetensors", False),
        ("pytorch_model.bin", False),
    ],
)
def test_files_that_are_fetched(name, wanted):
    from huggingface_hub.utils import filter_repo_objects

    found = filter_repo_objects([name], allow_patterns=hub.PATTERNS, ignore_patterns=hub.NOT_FETCHED)
    assert list(found) == [name] * wanted
