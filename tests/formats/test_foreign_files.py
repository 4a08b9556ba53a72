"""Files that others wrote are told apart by content and read as plain tensors."""

from __future__ import annotations

import argparse
import gzip
import io
import pickle
import sys
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ohlora.errors import FormatError, MissingArtifactError
from ohlora.formats.boundaries import read_boundary
from ohlora.formats.foreign_files import Kind, NvidiaNetwork, read_nvidia, read_rosinality, recognize
from ohlora.formats.pickles import Unread, read_pickle
from tests.formats import nvidia_pickles
from tests.golden import GOLDEN, stylegan2_tensor

CASES = ("stylegan2-ada-16", "stylegan3-t-16", "stylegan3-r-16")


def check_golden(network: NvidiaNetwork, salt: str, scale: float = 1.0, unscaled: tuple[str, ...] = ()) -> None:
    for key, value in network.state.items():
        want = stylegan2_tensor(salt, key, tuple(value.shape))
        if want is not None:
            factor = 1.0 if key.endswith(unscaled) else scale
            torch.testing.assert_close(value, want * factor, rtol=0, atol=0, msg=key)


@pytest.mark.parametrize("case", CASES)
def test_nvidia_pickles(case: str) -> None:
    modules = set(sys.modules)
    found = read_nvidia(GOLDEN / f"{case}.pkl")
    assert set(sys.modules) == modules
    assert list(found.networks) == ["G_ema", "G", "D"] and not found.refused and not found.unknown
    check_golden(found.networks["G_ema"], f"{case}/G")
    check_golden(found.networks["D"], f"{case}/D")
    # G is half of G_ema in its parameters; buffers are the same.
    check_golden(found.networks["G"], f"{case}/G", 0.5, ("noise_const", "w_avg"))
    for network in found.networks.values():
        assert all(value.dtype == torch.float32 and value.is_contiguous() for value in network.state.values())
        assert network.init_args == () and network.init_kwargs["img_resolution"] == 16
    ema, d = found.networks["G_ema"], found.networks["D"]
    assert ema.state.keys() == found.networks["G"].state.keys()
    assert (ema.class_name, d.class_name) == ("Generator", "Discriminator")
    assert ema.layers["mapping"].class_name == "MappingNetwork" and ema.layers["mapping"].attributes["num_layers"] == 2
    if case == "stylegan2-ada-16":
        assert ema.init_kwargs["synthesis_kwargs"] == {
            "channel_base": 512, "channel_max": 32, "num_fp16_res": 4, "conv_clamp": 256,
        }  # fmt: skip
        assert ema.init_kwargs["c_dim"] == 3 and len(ema.state) == 58 and len(d.state) == 46
        # Frozen layers are buffers in the file, and stand here as any others.
        assert d.init_kwargs["block_kwargs"] == {"freeze_layers": 2}
        assert d.state["b16.fromrgb.weight"].shape == (32, 3, 1, 1) and d.state["b16.conv0.weight"].shape[0] == 32
        assert d.layers["b4.mbstd"].attributes["group_size"] == 4
        torch.testing.assert_close(d.state["b8.resample_filter"].sum(), torch.tensor(1.0))
    else:
        assert ema.init_kwargs["conv_kernel"] == (1 if "-r-" in case else 3)
        layer = ema.layers["synthesis.L5_16_16"].attributes
        assert (
            layer["padding"] == ([-9, -10] if "-r-" in case else [-11, -12]) * 2
            and layer["up_factor"] == 2
            and layer["in_size"] == [36, 36]
        )
        assert ema.state["synthesis.L0_36_16.up_filter"].shape == (12,)
        assert ema.state["synthesis.L0_36_16.down_filter"].dim() == (2 if "-r-" in case else 1)
        assert ema.state["synthesis.input.transform"].tolist() == torch.eye(3).tolist()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("case", ["stylegan2-ada-16", "stylegan3-r-16"])
def test_nvidia_pickles_of_every_protocol(tmp_path: Path, case: str, protocol: int) -> None:
    """Python 3.7 wrote protocol 3; older spellings of names are the same objects."""
    data = nvidia_pickles.rewritten((GOLDEN / f"{case}.pkl").read_bytes(), protocol)
    if protocol in (2, 3):
        assert b"numpy._core" in data and (b"c__builtin__\nset" if protocol == 2 else b"cbuiltins\nset") in data
        data = data.replace(b"numpy._core.", b"numpy.core.")  # NumPy 1
    path = tmp_path / "network.pkl"
    path.write_bytes(data)
    found, reference = read_nvidia(path), read_nvidia(GOLDEN / f"{case}.pkl")
    assert not found.unknown
    for name, network in reference.networks.items():
        other = found.networks[name]
        assert other.init_kwargs == network.init_kwargs and other.layers == network.layers
        assert list(other.state) == list(network.state)
        assert all(torch.equal(other.state[key], value) for key, value in network.state.items())


def written(path: Path, **entries: Any) -> Path:
    path.write_bytes(nvidia_pickles.small(**entries))
    return path


def test_only_the_networks_asked_for_are_made(tmp_path: Path) -> None:
    with nvidia_pickles.named():
        path = written(tmp_path / "a.pkl", G=nvidia_pickles.module(parameters={"bias": torch.zeros(3)}))
    file = recognize(path)
    assert file.kind is Kind.NVIDIA
    assert list(read_nvidia(file, ("G",)).networks) == ["G"]
    assert read_nvidia(file, ("G",)).networks["G"].state["bias"].tolist() == [0, 0, 0]
    with pytest.raises(FormatError, match="holds no network that can be read: none of D is there"):
        read_nvidia(file, ("D",))
    with pytest.raises(FormatError, match="is a file of kind nvidia; expected rosinality"):
        read_rosinality(file)


def test_networks_saved_by_torch(tmp_path: Path) -> None:
    """The same modules in a checkpoint of torch, as some keep them."""
    with nvidia_pickles.named():
        torch.save({"G_ema": nvidia_pickles.module(parameters={"bias": torch.arange(3.0)})}, tmp_path / "a.pt")
    assert read_nvidia(tmp_path / "a.pt").networks["G_ema"].state["bias"].tolist() == [0, 1, 2]


def test_a_foreign_discriminator_does_not_bar_the_generator(tmp_path: Path) -> None:
    """Neither a class nobody knows, nor a tensor that is none."""
    with nvidia_pickles.named():
        odd = nvidia_pickles.module("D", {"weight": argparse.ArgumentParser.parse_args})
        path = written(tmp_path / "a.pkl", D=odd, G=io.UnsupportedOperation("x"), augment_pipe=argparse.Action)
    found = read_nvidia(path)
    assert list(found.networks) == ["G_ema"] and set(found.networks["G_ema"].state) == {"bias", "mapping.weight"}
    assert found.refused["G"] == "G is io.UnsupportedOperation, which is not run; expected a network"
    assert "weight is" in found.refused["D"] and "expected a tensor" in found.refused["D"]
    assert "argparse.Action" in found.unknown and "io.UnsupportedOperation" in found.unknown


def test_wrappers_half_precision_and_packages_of_their_own(tmp_path: Path) -> None:
    """What DistributedDataParallel and torch.compile put around a network is left out; fp16 becomes float32."""
    with nvidia_pickles.named():
        half = nvidia_pickles.module(parameters={"bias": torch.tensor([1.5, 2.5]).half()}, _init_kwargs={"c_dim": 7})
        compiled = nvidia_pickles.module(
            "Whole", modules={"mapping": nvidia_pickles.module("OptimizedModule", modules={"_orig_mod": half})}
        )
        wrapped = nvidia_pickles.module("DistributedDataParallel", modules={"module": half}, _init_kwargs={})
        path = written(tmp_path / "a.pkl", G=wrapped, D=compiled)
    data = path.read_bytes().replace(b"torch_utils.persistence", b"src.torch_utils.persistence")
    path.write_bytes(data.replace(b"dnnlib.util", b"x.y.dnnlib.util"))
    found = read_nvidia(path).networks
    assert found["G"].class_name == "Generator" and found["G"].init_kwargs == {"c_dim": 7}
    assert found["G"].state["bias"].dtype == torch.float32 and found["G"].state["bias"].tolist() == [1.5, 2.5]
    assert list(found["D"].state) == ["mapping.bias"] and set(found["D"].layers) == {"", "mapping"}
    assert found["D"].layers["mapping"].class_name == "Generator"  # and not that of its wrapper


def test_arguments_are_plain(tmp_path: Path) -> None:
    with nvidia_pickles.named() as easy:
        settings = {
            "clamp": None, "sizes": [4, np.int64(8)], "nested": easy(beta=np.float32(0.5)), "pair": (1, True),
            "grid": np.arange(4).reshape(2, 2), "big": np.arange(3, dtype=">i4"), "odd": argparse.Action,
            "dtype": np.dtype("f4"), "objects": np.array([None, "x"], dtype=object),
        }  # fmt: skip
        path = written(tmp_path / "a.pkl", G=nvidia_pickles.module(_init_kwargs=easy(settings), _init_args=(3,)))
    network = read_nvidia(path).networks["G"]
    assert network.init_args == (3,)
    assert {key: value for key, value in network.init_kwargs.items() if key not in ("odd", "dtype", "objects")} == {
        "clamp": None, "sizes": [4, 8], "nested": {"beta": 0.5}, "pair": (1, True), "grid": [[0, 1], [2, 3]],
        "big": [0, 1, 2],
    }  # fmt: skip
    assert network.init_kwargs["odd"] == Unread("argparse.Action")
    assert all(isinstance(network.init_kwargs[key], Unread) for key in ("dtype", "objects"))


def shared_tensors() -> dict[str, Any]:
    base = torch.arange(24, dtype=torch.float32)
    return {
        "view": base[4:16].view(3, 4), "turned": base.view(4, 6).t(), "step": base[::5], "scalar": torch.tensor(2.5),
        "none": torch.empty(0, 3), "half": torch.tensor([1.5]).half(), "brain": torch.tensor([1.5]).bfloat16(),
        "long": torch.tensor([2**40]), "flags": torch.tensor([True, False]), "double": torch.tensor([0.1]).double(),
        "parameter": torch.nn.Parameter(torch.ones(2)), "bytes": torch.tensor([7], dtype=torch.uint8),
    }  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_tensors_are_those_that_torch_reads(tmp_path: Path, zipped: bool, protocol: int) -> None:
    content = shared_tensors()
    torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    found = read_pickle(tmp_path / "a.pt").root
    for key, value in content.items():
        tensor = found[key].tensor()
        assert tensor.dtype == value.dtype and torch.equal(tensor, value.detach()), key
        assert tensor.untyped_storage().nbytes() == value.numel() * value.element_size()


def test_tensors_inside_a_pickle_are_those_that_torch_reads(tmp_path: Path) -> None:
    content = shared_tensors()
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content))
    found = read_pickle(tmp_path / "a.pkl").root
    assert all(torch.equal(found[key].tensor(), value.detach()) for key, value in content.items())


def rosinality_state(prefix: str = "", dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    shapes = {"style.1.weight": (8, 8), "input.input": (1, 4, 4, 4), "conv1.conv.weight": (1, 4, 4, 3, 3)}
    tensors = {key: torch.randn(shape, generator=torch.Generator().manual_seed(1)) for key, shape in shapes.items()}
    return OrderedDict((f"{prefix}{key}", value.to(dtype)) for key, value in tensors.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_rosinality_checkpoints(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "any.name"
    adam = torch.optim.Adam([torch.nn.Parameter(torch.ones(2))])
    content = {
        "g": rosinality_state("module."), "d": {"final_linear.0.weight": torch.ones(2)},
        "g_ema": rosinality_state("module._orig_mod.", torch.float16), "g_optim": adam.state_dict(), "ada_aug_p": 0.25,
        "args": argparse.Namespace(size=32, latent=8, n_mlp=1, channel_multiplier=2, path="data", augment=False),
        "latent_avg": torch.ones(1, 8),
    }  # fmt: skip
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    found = read_rosinality(path)
    assert not found.unknown and list(found.networks) == ["g_ema", "g", "d"]
    assert found.args == {
        "size": 32,
        "latent": 8,
        "n_mlp": 1,
        "channel_multiplier": 2,
        "path": "data",
        "augment": False,
    }
    assert found.latent_avg is not None and found.latent_avg.tolist() == [1.0] * 8
    state = rosinality_state()
    assert list(found.networks["g"]) == list(state)
    for key, value in state.items():
        assert torch.equal(found.networks["g"][key], value)
        assert torch.equal(found.networks["g_ema"][key], value.half().float())
    assert list(read_rosinality(path, ("g_ema",)).networks) == ["g_ema"]


def test_a_small_rosinality_checkpoint(tmp_path: Path) -> None:
    torch.save({"g_ema": rosinality_state()}, tmp_path / "a.pt")
    found = read_rosinality(tmp_path / "a.pt")
    assert list(found.networks) == ["g_ema"] and found.latent_avg is None and found.args == {}
    torch.save({"g_ema": rosinality_state() | {"module.input.input": torch.ones(1)}}, tmp_path / "b.pt")
    with pytest.raises(FormatError, match=r"g_ema in .*b\.pt has two tensors input\.input"):
        read_rosinality(tmp_path / "b.pt")
    torch.save({"g_ema": rosinality_state() | {"x": "y"}}, tmp_path / "c.pt")
    with pytest.raises(FormatError, match=r"c\.pt: x is a str; expected a tensor"):
        read_rosinality(tmp_path / "c.pt")
    torch.save({"g_ema": rosinality_state(), "latent_avg": 3}, tmp_path / "d.pt")
    with pytest.raises(FormatError, match=r"latent_avg in .*d\.pt is an int; expected a tensor"):
        read_rosinality(tmp_path / "d.pt")


def test_the_other_kinds_that_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a"
    torch.save({"generator_smooth": {"synthesis.layer0.const": torch.ones(1)}, "optimizers": {}}, path)
    assert recognize(path).kind is Kind.GENFORCE
    torch.save({"discriminator": {"input0.weight": torch.ones(1)}}, path, _use_new_zipfile_serialization=False)
    assert recognize(path).kind is Kind.GENFORCE
    torch.save({"synthesis.layer0.const": torch.ones(1)}, path)
    assert recognize(path).kind is Kind.ORIGINAL
    torch.save({"hairstyle_score_cnn.fc_final.weight": torch.ones(1)}, path)
    assert recognize(path).kind is Kind.ORIGINAL
    ours = next((Path(__file__).parents[2] / "ohlora" / "weights").rglob("*.safetensors"))
    path.write_bytes(ours.read_bytes())
    assert recognize(path).kind is Kind.OHLORA and recognize(path).content is None
    for read in (read_nvidia, read_rosinality):
        with pytest.raises(FormatError, match="is a file of kind ohlora; expected"):
            read(path)
    with pytest.raises(MissingArtifactError, match="does not exist"):
        recognize(tmp_path / "none.pkl")


def zipped(**files: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in files.items():
            archive.writestr(f"a/{name.replace('_', '.')}", data)
    return stream.getvalue()


def saved(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("network.pkl"), io.BytesIO(b""))
    return stream.getvalue()


def numpy_file() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.ones(3))
    return stream.getvalue()


# A tuple of one Network, as NVIDIA's TensorFlow repositories pickled (G, D, Gs).
TENSORFLOW = b"\x80\x03cdnnlib.tflib.network\nNetwork\n)\x81}X\x04\x00\x00\x00nameX\x01\x00\x00\x00Gsb\x85."
LUCIDRAINS = {"GAN": {"S.net.0.weight": torch.ones(1), "G.initial_conv.weight": torch.ones(1)}, "version": "1.8.0"}
UNREADABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "page": (lambda: b"\n<!DOCTYPE html><html>Google Drive - Virus scan warning</html>", "is a web page and not"),
    "denied": (lambda: b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
    "pointer": (lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run git lfs pull"),
    "empty": (lambda: b"", "is empty: the download failed; get it again"),
    "tensorflow": (lambda: TENSORFLOW, "TensorFlow pickle of NVIDIA's: convert it with legacy.py .*--dest OUT.pkl"),
    "lucidrains": (lambda: saved(LUCIDRAINS), "lucidrains' stylegan2-pytorch.*no conversion exists: generate images"),
    "lightning": (lambda: saved({"pytorch-lightning_version": "2.6", "state_dict": {}}), "checkpoint of Lightning"),
    "torchscript": (lambda: zipped(data_pkl=b".", constants_pkl=b"."), "is a TorchScript program, which would have to"),
    "zip": (lambda: zipped(network_pkl=b"."), "is a zip archive without a checkpoint of torch: unpack it"),
    "cut zip": (lambda: saved({"g_ema": rosinality_state()})[:-40], "truncated or damaged zip archive or checkpoint"),
    "gzip": (lambda: gzip.compress(b"x"), "is an archive: unpack it"),
    "tar": (tarred, "is an archive: unpack it"),
    "numpy": (numpy_file, "is a NumPy array and no network: a direction"),
    "keras": (lambda: b"\x89HDF\r\n\x1a\n", "is an HDF5 file of Keras"),
    "words": (lambda: b"just words", "is damaged or no pickle: "),
    "list": (lambda: pickle.dumps([1]), "holds a list. Expected G_ema, G or D"),
    "other": (lambda: pickle.dumps({"weights": argparse.Action, 3: 4}), "with weights; it names argparse.Action"),
    "none": (lambda: pickle.dumps({"G_ema": None}), "holds a dictionary with G_ema. Expected"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_not_read_is_named(tmp_path: Path, name: str) -> None:
    """Whatever the file is called, the message is one line that says what to do."""
    content, message = UNREADABLE[name]
    path = tmp_path / "network.pkl"
    path.write_bytes(content())
    with pytest.raises(FormatError, match=message) as caught:
        recognize(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500 + len(str(path))


def test_boundaries(tmp_path: Path) -> None:
    direction = np.random.default_rng(1).standard_normal((1, 512))
    direction /= np.linalg.norm(direction)
    np.save(tmp_path / "a.npy", direction)
    found = read_boundary(tmp_path / "a.npy", 512)
    assert found.shape == (1, 512) and found.dtype == torch.float32
    np.testing.assert_array_equal(found.numpy(), direction.astype(np.float32))
    np.save(tmp_path / "b.npy", direction[0].astype(np.float16) * 3)
    assert read_boundary(tmp_path / "b.npy").shape == (1, 512)
    torch.testing.assert_close(read_boundary(tmp_path / "b.npy").norm(), torch.tensor(3.0), rtol=1e-2, atol=0)


BOUNDARIES = {
    "size": (np.ones((1, 8), np.float32), "is a direction of 8 numbers; expected 512"),
    "layers": (np.ones((18, 512)), r"holds float64 of shape \(18, 512\); expected a boundary"),
    "number": (np.float64(3), r"holds float64 of shape \(\)"),
    "column": (np.ones((512, 1)), r"of shape \(512, 1\)"),
    "nothing": (np.ones((1, 0)), r"of shape \(1, 0\)"),
    "whole": (np.ones((1, 512), np.int64), "holds int64"),
    "zero": (np.zeros((1, 512)), "zero or not finite"),
    "nan": (np.full((1, 512), np.nan), "zero or not finite"),
    "overflow": (np.full((1, 512), 1e300), "zero or not finite"),
}


@pytest.mark.parametrize("name", BOUNDARIES)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_what_is_no_boundary(tmp_path: Path, name: str) -> None:
    array, message = BOUNDARIES[name]
    np.save(tmp_path / "a.npy", np.asarray(array))
    with pytest.raises(FormatError, match=message):
        read_boundary(tmp_path / "a.npy", 512)


def test_boundaries_that_are_no_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with pytest.raises(MissingArtifactError):
        read_boundary(path)
    np.save(path, np.array([[None]], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match="cannot be read as an array"):
        read_boundary(path)
    np.savez(tmp_path / "a.npz", x=np.ones(3))
    with pytest.raises(FormatError, match="is an archive of several arrays"):
        read_boundary(tmp_path / "a.npz")
    np.save(path, np.ones((1, 512)))
    whole = path.read_bytes()
    for cut in (0, 5, 20, 100, 1000, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(FormatError, match="cannot be read as an array"):
            read_boundary(path)
    # A header that claims 8 TB.
    path.write_bytes(whole.replace(b"(1, 512)", b"(1,1e12)").replace(b"1e12)", b"9**9)"))
    with pytest.raises(FormatError, match="cannot be read as an array"):
        read_boundary(path)
    path.write_bytes(whole.replace(b"(1, 512), }         ", b"(1, 1000000000000), }"[:20]))
    with pytest.raises(FormatError):
        read_boundary(path)
