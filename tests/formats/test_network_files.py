"""Our network files, and foreign ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import ohlora
from ohlora.__main__ import main
from ohlora.errors import FormatError, MissingArtifactError
from ohlora.formats import foreign, network_files, tensor_files
from ohlora.networks.stylegan import Generator
from tests import golden
from tests.conftest import FORMAT_1, assert_same, tiny_networks

CASE = "stylegan-64-tiny"


@pytest.fixture
def genforce(tmp_path: Path) -> Path:
    """A GenForce file with an averaged generator that differs from the raw one."""
    raw = golden.stylegan_state(CASE, "generator")
    smooth = {key: value + 0.01 if key.endswith("const") else value for key, value in raw.items()}
    path = tmp_path / "genforce.pth"
    entries = {
        "generator": raw,
        "generator_smooth": smooth,
        "discriminator": golden.stylegan_state(CASE, "discriminator"),
    }
    torch.save(entries, path)
    return path


def saved(state: dict[str, Any], tmp_path: Path) -> Path:
    path = tmp_path / "changed.pth"
    torch.save(state, path)
    return path


def test_a_saved_network_rebuilds_itself(tmp_path: Path) -> None:
    g, d = tiny_networks(c_dim=2)
    g.set_labels("dataset", torch.randn(5, 2))
    for network, name in ((g, "g"), (d, "d")):
        path = tmp_path / f"{name}.safetensors"
        network_files.save_network(network, path, {"stage": "test"})
        loaded = ohlora.load_network(path)
        assert type(loaded) is type(network) and not loaded.training
        assert network_files.read_metadata(path)["arguments"] == network.arguments()
        assert_same(loaded.state_dict(), network.state_dict())
        assert network_files.read_metadata(path)["provenance"] == {"stage": "test"}
    with pytest.raises(FormatError, match="holds a stylegan_generator; expected a discriminator"):
        network_files.load_discriminator(tmp_path / "g.safetensors")


def test_networks_of_the_first_version_load() -> None:
    told = network_files.read_metadata(FORMAT_1 / "generator.safetensors")
    assert (told["format_version"], told["kind"]) == (1, "stylegan_generator")
    assert told["arguments"]["z_dim"] == 8 and told["provenance"] == {"source": "random"}
    g = network_files.load_generator(FORMAT_1 / "generator.safetensors")
    d = network_files.load_discriminator(FORMAT_1 / "discriminator.safetensors")
    expected = np.load(FORMAT_1 / "expected.npz")  # what the version that wrote the files made of them
    z, label = torch.from_numpy(expected["z"]), torch.from_numpy(expected["label"])
    with torch.inference_mode():
        images = g(z, label)
        np.testing.assert_allclose(images.numpy(), expected["images"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(d(images, label).numpy(), expected["scores"], rtol=1e-5, atol=1e-5)


def test_a_network_of_an_unknown_family_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "g.safetensors"
    about = {"kind": "other_generator", "arguments": {}, "provenance": {}}
    tensor_files.write(path, network_files.FORMAT, network_files.FORMAT_VERSION, {"x": torch.zeros(1)}, **about)
    with pytest.raises(FormatError, match="kind 'other_generator'; expected stylegan_generator, stylegan2_gen"):
        network_files.load_generator(path)


BRANCH: dict[str, Any] = {"outputs": ["eyes"], "crops": [[0, 1, 0, 1]], "plan": "8/2"}
LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "layers": ("stylegan2_generator", {"resolution": 16, "mapping_layers": 10**9}),
    "members": ("attribute_ensemble", {"members": 10**9, "branches": [BRANCH], "resolution": 16}),
    "plan": ("attribute_cnn", {"branches": [BRANCH | {"plan": "8 " * 10**5}], "resolution": 16}),
    "levels": ("face_parser", {"classes": ["a"], "widths": [8] * 10**5}),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_description_of_a_billion_layers_is_not_followed(tmp_path: Path, name: str) -> None:
    path = tmp_path / "g.safetensors"
    kind, arguments = LARGE[name]
    tensor_files.write(path, network_files.FORMAT, 2, {"x": torch.zeros(1)}, kind=kind, arguments=arguments)
    with pytest.raises(FormatError, match=r"\(ValueError: a network of more than 106 modules and parameters\)"):
        network_files.load_network(path)


def test_a_description_takes_no_memory(tmp_path: Path) -> None:
    """The tensors fit; the image that the network is for would take 1.2 TB."""
    arguments = {"branches": [BRANCH | {"plan": "8/100000"}], "resolution": 10**5}
    with torch.device("meta"):
        shapes = {
            key: value.shape for key, value in network_files.KINDS["attribute_cnn"](**arguments).state_dict().items()
        }
    state = {key: torch.zeros(shape) for key, shape in shapes.items()}
    path = tmp_path / "cnn.safetensors"
    tensor_files.write(path, network_files.FORMAT, 2, state, kind="attribute_cnn", arguments=arguments)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    assert_same(network_files.load_network(path).state_dict(), state)
    assert torch.equal(torch.rand(1), expected)  # nothing was drawn


@pytest.mark.parametrize("text", ["[" * 10**5, '{"resolution": ' + "9" * 5000 + "}"])
def test_metadata_that_no_parser_takes(tmp_path: Path, text: str) -> None:
    metadata = {"format": network_files.FORMAT, "format_version": "2", "kind": "stylegan2_generator", "arguments": text}
    save_file({"x": torch.zeros(1)}, tmp_path / "g", metadata)
    with pytest.raises(FormatError, match="does not describe its network; get it or make it again"):
        network_files.load_network(tmp_path / "g")


def test_files_that_are_not_ours(tmp_path: Path) -> None:
    with pytest.raises(MissingArtifactError, match="does not exist"):
        ohlora.load_network(tmp_path / "none.safetensors")
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(FormatError, match="not a network written by ohlora"):
        ohlora.load_network(path)
    g, _ = tiny_networks()
    network_files.save_network(g, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match="not a readable safetensors file"):
        ohlora.load_network(path)


def test_import_takes_the_averaged_generator_unless_told(
    genforce: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["import-weights", str(genforce), str(tmp_path / "smooth")]) == 0
    assert "averaged weights of" in capsys.readouterr().out
    assert main(["import-weights", str(genforce), str(tmp_path / "raw"), "--raw"]) == 0
    assert "averaged weights of" not in capsys.readouterr().out
    smooth = ohlora.load_network(tmp_path / "smooth" / "generator.safetensors").state_dict()
    raw = ohlora.load_network(tmp_path / "raw" / "generator.safetensors").state_dict()
    constant = "synthesis.block4.layer0.constant"
    torch.testing.assert_close(smooth[constant], raw[constant] + 0.01)
    metadata = network_files.read_metadata(tmp_path / "smooth" / "discriminator.safetensors")
    assert metadata["provenance"]["source"] == "genforce.pth"
    assert metadata["arguments"] == {
        "resolution": 64,
        "c_dim": 7,
        "channel_base": 1024,
        "channel_max": 64,
        "mbstd_group_size": 4,
        "label_head": "linear",
    }


def test_import_reads_a_single_network(tmp_path: Path) -> None:
    path = saved(golden.stylegan_state(CASE, "discriminator"), tmp_path)
    assert main(["import-weights", str(path), str(tmp_path / "out")]) == 0
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["discriminator.safetensors"]
    arguments = network_files.read_metadata(tmp_path / "out" / "discriminator.safetensors")["arguments"]
    assert arguments["mbstd_group_size"] == 16  # Oh-LoRA's


def test_import_adds_labels(tmp_path: Path) -> None:
    labelled = golden.stylegan_state(CASE, "generator")
    del labelled["mapping.label_weight"]
    labelled["mapping.dense0.weight"] = labelled["mapping.dense0.weight"][:, :64].clone()
    path = saved(labelled, tmp_path)
    assert main(["import-weights", str(path), str(tmp_path / "plain")]) == 0
    assert main(["import-weights", str(path), str(tmp_path / "seven"), "--add-labels", "7"]) == 0
    plain = network_files.load_generator(tmp_path / "plain" / "generator.safetensors")
    seven = network_files.load_generator(tmp_path / "seven" / "generator.safetensors")
    z = torch.randn(3, 64)
    images = plain(z)
    assert float((seven(z, torch.zeros(3, 7)) - images).abs().max()) <= 1e-5 * float(images.abs().max())


def test_every_mismatch_is_listed_and_nothing_written(
    genforce: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = torch.load(genforce, weights_only=True)
    state = entries["discriminator"]
    del state["layer0.bias"]
    state["layer2.weight"] = state["layer2.weight"][:, :-1].clone()
    state["extra"] = torch.zeros(1)
    path = saved(entries, tmp_path)
    assert main(["import-weights", str(path), str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    for part in ("missing layer0.bias", "unexpected extra", "misshapen layer2.weight (32, 31, 3, 3) instead of"):
        assert part in message
    assert not (tmp_path / "out").exists()


def test_growing_networks_are_refused(tmp_path: Path) -> None:
    state = golden.stylegan_state(CASE, "generator") | {"synthesis.lod": torch.tensor(1.5)}
    with pytest.raises(FormatError, match=r"synthesis.lod is 1.5; expected 0"):
        foreign.read_foreign(saved(state, tmp_path))


class Code:
    """Unpickling this would run a function."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code was run",)


def test_files_that_need_code_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved({"generator": Code()}, tmp_path)
    with pytest.raises(FormatError, match=r"with generator; it names __builtin__\.print\. Expected G_ema"):
        foreign.read_foreign(path)
    assert "code was run" not in capsys.readouterr().out


def test_truncated_and_foreign_files_are_refused(genforce: Path, tmp_path: Path) -> None:
    content = genforce.read_bytes()
    genforce.write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match="truncated or damaged zip archive or checkpoint of torch: get it again"):
        foreign.read_foreign(genforce)
    with pytest.raises(FormatError, match=r"holds a dictionary with a\. Expected G_ema, G or D"):
        foreign.read_foreign(saved({"a": torch.zeros(1)}, tmp_path))
    with pytest.raises(MissingArtifactError, match="does not exist"):
        foreign.read_foreign(tmp_path / "none.pth")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    g, _ = tiny_networks()
    path = tmp_path / "generator.safetensors"
    network_files.save_network(g, path)
    before = path.read_bytes()

    def fail(_: Any, part: Path, __: Any) -> None:
        part.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(tensor_files, "save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        network_files.save_network(Generator(8, 4, 4, 0, 1, 32, 4), path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["generator.safetensors"]
