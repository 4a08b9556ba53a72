"""Hostile and damaged pickles: nothing in them runs, is imported or takes memory that the file does not have."""

from __future__ import annotations

import codecs
import copyreg
import io
import pickle
import re
import resource
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from ohlora.errors import FormatError
from ohlora.formats.foreign_files import ForeignFile, read_nvidia, read_rosinality, recognize
from ohlora.formats.pickles import PickleFile, Placeholder, read_pickle
from tests.formats import nvidia_pickles
from tests.golden import GOLDEN

# Opcodes by hand


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def called(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def pickled(content: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + content + b"."


def listed(*items: bytes) -> bytes:
    return b"](" + b"".join(items) + b"e"


SYSTEM = named("os", "system")
IMPORT = named("importlib", "import_module")
PLAIN = named("types", "SimpleNamespace")
OBJECT = named("builtins", "object")
LOADER = named("torch.storage", "_load_from_bytes")
NUMPY = "numpy._core.multiarray"
EXTENSIONS = {0xF0: ("os", "system"), 0x10F1: ("posix", "system"), 0x1211F2: ("subprocess", "getoutput")}


def binary(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def array_of(kind: bytes, shape: bytes, content: bytes) -> bytes:
    empty = called(named(NUMPY, "_reconstruct"), named("numpy", "ndarray"), b"K\x00\x85", binary(b"b"))
    return (
        empty + b"(K\x01" + shape + called(named("numpy", "dtype"), kind, b"\x89", b"\x88") + b"\x89" + content + b"tb"
    )


def hostile(command: str) -> dict[str, bytes]:
    """Pickles that run a command when Python's unpickler reads them."""
    argument = text(command)
    run = called(SYSTEM, argument)
    python = text(f"__import__('os').system({command!r})")
    os_module = called(IMPORT, text("os"))
    mapped = called(named("builtins", "map"), SYSTEM, listed(argument))
    set_state = text("__setstate__") + SYSTEM + b"s"
    shell = listed(text("sh"), text("-c"), argument)
    inner = called(named("_codecs", "encode"), text(f"cos\nsystem\n(V{command}\ntR."), text("latin1"))
    meta = b"}(" + text("type") + text("class") + text("module_src") + python + text("state") + run + b"u"
    return {
        "REDUCE": run,
        "REDUCE of posix": called(named("posix", "system"), argument),
        "REDUCE inside": listed(called(named("collections", "OrderedDict")), run),
        "REDUCE of a memoised name": SYSTEM + b"q\x05" + b"0h\x05" + argument + b"\x85R",
        "GLOBAL of protocol 0": f"cos\nsystem\np0\n(V{command}\np1\ntp2\nRp3\n".encode(),
        "STACK_GLOBAL": called(text("os") + text("system") + b"\x93", argument),
        "STACK_GLOBAL with dots": called(text("os") + text("path.os.system.__call__") + b"\x93", argument),
        "INST": b"(" + argument + b"ios\nsystem\n",
        "OBJ": b"(" + SYSTEM + argument + b"o",
        "NEWOBJ": named("operator", "methodcaller") + text("system") + argument + b"\x86\x81" + os_module + b"\x85R",
        "NEWOBJ_EX": named("functools", "partial") + SYSTEM + argument + b"\x86}\x92)R",
        "BUILD": PLAIN + b")\x81}" + set_state + b"b" + argument + b"b",
        "BUILD of slots": PLAIN + b")\x81N}" + set_state + b"\x86b" + argument + b"b",
        "EXT1": b"\x82\xf0" + argument + b"\x85R",
        "EXT2": b"\x83\xf1\x10" + argument + b"\x85R",
        "EXT4": b"\x84\xf2\x11\x12\x00" + argument + b"\x85R",
        "eval": called(named("builtins", "eval"), python),
        "eval of Python 2": called(named("__builtin__", "eval"), python),
        "exec": called(named("builtins", "exec"), python),
        "getattr": called(called(named("builtins", "getattr"), os_module, text("system")), argument),
        "attrgetter": called(called(called(named("operator", "attrgetter"), text("system")), os_module), argument),
        "itemgetter": called(
            called(called(named("operator", "itemgetter"), text("system")), text("os") + text("__dict__") + b"\x93"),
            argument,
        ),
        "partial": called(called(named("functools", "partial"), SYSTEM, argument)),
        "map": called(named("builtins", "list"), mapped),
        "dictionary of an iterator": called(
            named("collections", "OrderedDict"), called(named("builtins", "zip"), mapped, listed(argument))
        ),
        "set of an iterator": called(named("builtins", "set"), mapped),
        "subprocess": called(named("subprocess", "call"), shell),
        "Popen": called(
            called(named("operator", "methodcaller"), text("wait")), called(named("subprocess", "Popen"), shell)
        ),
        "spawn": called(named("os", "spawnlp"), b"K\x00", text("sh"), text("sh"), text("-c"), argument),
        "timeit": called(
            named("timeit", "repeat"), python, text("pass"), named("time", "perf_counter"), b"K\x01", b"K\x01"
        ),
        "pickle in a pickle": called(named("pickle", "loads"), inner),
        "reconstructor": called(named("copyreg", "_reconstructor"), named("argparse", "Namespace"), OBJECT, b"N")
        + (b"}" + set_state + b"b" + argument + b"b"),
        "copyreg": called(named("copyreg", "__newobj__"), PLAIN) + b"}" + set_state + b"b" + argument + b"b",
        "array of objects": array_of(text("O"), b"K\x01\x85", listed(run)),
        "array's type": called(named("numpy", "dtype"), listed(text("f4") + run + b"\x86")),
        "number": called(named(NUMPY, "scalar"), run, binary(b"abcd")),
        "storage": called(LOADER, run),
        "tensor": called(named("torch._utils", "_rebuild_tensor_v2"), run, b"K\x00", b")", b")", b"\x89", b"N"),
        "persistent module": called(named("torch_utils.persistence", "_reconstruct_persistent_obj"), meta),
        "key": b"}" + run + b"K\x01s",
    }  # fmt: skip


def inert(command: str) -> dict[str, bytes]:
    """Other ways to name things, which Python's unpickler may refuse or survive by itself."""
    argument = text(command)
    run = called(SYSTEM, argument)
    return {
        "PERSID": f"P{command}\n".encode(),
        "BINPERSID": run + b"Q",
        "BINPERSID of a storage": b"(" + text("storage") + run + text("0") + text("cpu") + b"K\x01tQ",
        "NEWOBJ of a function": SYSTEM + argument + b"\x85\x81",
        "NEWOBJ_EX of a function": SYSTEM + b")}" + text("command") + argument + b"s\x92",
        "BUILD of a function": SYSTEM + b"}" + text("__call__") + argument + b"sb",
        "modules": called(named("antigravity", "x")) + called(named("this", "s")) + called(named("idlelib.idle", "x")),
        "storage of a zip": called(LOADER, binary(b"PK\x03\x04" + bytes(26))),
        "storage by a reconstructor": called(named("copyreg", "_reconstructor"), LOADER, OBJECT, binary(b"x")),
        "buffer": b"\x97\x98",
    }  # fmt: skip


LEGACY_START = (
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}X\x0d\x00\x00\x00little_endian\x88s."
)
"""The three pickles at the start of torch's older format."""


@contextmanager
def registered() -> Iterator[None]:
    """Extension codes that stand for a function."""
    for code, (module, name) in EXTENSIONS.items():
        copyreg.add_extension(module, name, code)
    try:
        yield
    finally:
        for code, (module, name) in EXTENSIONS.items():
            copyreg.remove_extension(module, name, code)


def outcome(data: bytes, path: Path) -> ForeignFile | FormatError:
    """What reading a file comes to; every error but the expected one is the test's failure."""
    path.write_bytes(data)
    try:
        file = recognize(path)
        for read in (read_nvidia, read_rosinality):
            try:
                read(file)
            except FormatError as error:
                assert_one_line(error)
    except FormatError as error:
        assert_one_line(error)
        return error
    return file


def assert_one_line(error: FormatError) -> None:
    assert str(error).isprintable() and len(str(error)) < 1000, str(error)


@pytest.fixture
def nothing_happens(tmp_path: Path) -> Iterator[Callable[[bytes], ForeignFile | FormatError]]:
    """Reads a file in an empty folder; afterwards no module was imported and there is nothing but the file."""
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "start.pkl").write_bytes(b"")
    with pytest.raises(FormatError):
        recognize(folder / "start.pkl")
    (folder / "start.pkl").unlink()
    # Python's own codecs for names in zip archives and for old text, which it imports when it needs them.
    codecs.lookup("cp437"), codecs.lookup("raw_unicode_escape")
    np.random.default_rng()  # numpy imports its generators at first use; the tests use them
    modules, here = set(sys.modules), Path.cwd()

    def read(data: bytes) -> ForeignFile | FormatError:
        result = outcome(data, folder / "network.pkl")
        assert set(sys.modules) == modules
        assert Path.cwd() == here
        assert [path.name for path in folder.iterdir()] == ["network.pkl"] and not (tmp_path / "ran").exists()
        return result

    yield read


@pytest.mark.parametrize("name", hostile(""))
def test_hostile_pickles_run_nothing(
    tmp_path: Path, nothing_happens: Callable[[bytes], ForeignFile | FormatError], name: str
) -> None:
    """Alone, as the network, as its weight, as a setting, in a list of torch's, and in place of a storage."""
    command = f"touch {tmp_path / 'ran'}"
    content = hostile(command)[name]
    with nvidia_pickles.named():
        good = nvidia_pickles.small(protocol=2)
    result = nothing_happens(pickled(content))
    assert isinstance(result, FormatError)
    inside = b"}(" + text("G_ema") + content + text("D") + content + b"u"
    assert isinstance(nothing_happens(pickled(inside)), FormatError)
    # As the augmentation pipe of a good file it does not bar the generator.
    spoiled = good[:-1] + text("augment_pipe") + content + b"s."
    result = nothing_happens(spoiled)
    assert isinstance(result, ForeignFile)
    assert read_nvidia(result).networks["G_ema"].state["bias"].tolist() == [0, 1, 2]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled(content))
        archive.writestr("archive/version", "3\n")
    assert isinstance(nothing_happens(buffer.getvalue()), FormatError)
    legacy = LEGACY_START + pickled(content) + pickled(b"]")
    assert isinstance(nothing_happens(legacy), FormatError)
    assert isinstance(nothing_happens(pickled(called(LOADER, binary(legacy)))), FormatError)


@pytest.mark.parametrize("name", [name for name in hostile("") if name != "persistent module"])
@pytest.mark.filterwarnings("ignore")
def test_hostile_pickles_are_hostile(tmp_path: Path, name: str) -> None:
    """Python's own unpickler runs them; without this the test above could pass on files that are merely broken."""
    data = pickled(hostile(f"touch {tmp_path / 'ran'}")[name], 2 if "Python 2" in name else 4)
    with registered():
        try:
            pickle.loads(data)
        except (TypeError, AttributeError, ValueError, pickle.UnpicklingError) as error:
            print("after the command:", error)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", inert(""))
def test_other_calls_run_nothing(
    tmp_path: Path, nothing_happens: Callable[[bytes], ForeignFile | FormatError], name: str
) -> None:
    content = inert(f"touch {tmp_path / 'ran'}")[name]
    assert isinstance(nothing_happens(pickled(content, 4)), FormatError)
    nothing_happens(pickled(b"}" + text("G_ema") + content + b"s", 4))


def test_what_was_refused_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(
        pickled(b"}(" + text("G_ema") + called(SYSTEM, text("true")) + text("x") + named("a\x1b[31m", "b") + b"u")
    )
    with pytest.raises(
        FormatError, match=r"holds a dictionary with G_ema, x; it names a\\x1b\[31m.b, os.system. Expected"
    ):
        recognize(path)
    found = read_pickle(path).root["G_ema"]
    assert isinstance(found, Placeholder) and found.name == "os.system" and found.arguments == ("true",)


# Sizes


@contextmanager
def little_memory(room: int = 300 << 20) -> Iterator[None]:
    """Lets the process take no more than so many bytes on top of what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + room, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def storage(numel: int, data: bytes, key: str = "0", stated: int | None = None) -> bytes:
    """A pickled storage of float32 that claims ``numel`` values."""
    long = b"\x8a\x08" + struct.pack("<q", numel)
    reference = b"(" + text("storage") + named("torch", "FloatStorage") + text(key) + text("cpu") + long + b"NtQ"
    count = struct.pack("<q", numel if stated is None else stated)
    return called(LOADER, binary(LEGACY_START + pickled(reference) + pickled(listed(text(key))) + count + data))


def tensor(stored: bytes, offset: int, shape: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    def counts(values: tuple[int, ...]) -> bytes:
        return b"(" + b"".join(b"\x8a\x08" + struct.pack("<q", value) for value in values) + b"t"

    return called(
        named("torch._utils", "_rebuild_tensor_v2"), stored, b"\x8a\x08" + struct.pack("<q", offset), counts(shape),
        counts(stride), b"\x89", b"N",
    )  # fmt: skip


def numpy_array(count: int, code: str = "f4") -> bytes:
    return array_of(text(code), b"\x8a\x08" + struct.pack("<q", count) + b"\x85", binary(b"abcd"))


def doubled(levels: int, start: bytes, opcodes: bytes) -> bytes:
    """An object that holds itself twice, so many times over: 2 to the power of levels objects to whoever walks it."""
    return start + b"".join(b"q\x01" + opcodes for _ in range(levels))


def storages_within(levels: int) -> bytes:
    """A storage in a storage, so many times over."""
    content = named("torch", "FloatStorage")
    for _ in range(levels):
        content = called(LOADER, binary(LEGACY_START + pickled(content) + pickled(b"]")))
    return content


FOUR = struct.pack("<4f", 1, 2, 3, 4)
CLAIMS = {
    "BINBYTES8": (b"\x8e" + struct.pack("<Q", 2**40), "expected .* bytes"),
    "BINUNICODE8": (b"\x8d" + struct.pack("<Q", 2**62), "expected .* bytes"),
    "BYTEARRAY8": (b"\x96" + struct.pack("<Q", 2**40), "expected .* bytes"),
    "BINUNICODE": (b"X\xff\xff\xff\xff", "expected .* bytes"),
    "LONG4": (b"\x8b\xff\xff\xff\x7f", "not enough data"),
    "LONG4 of bits": (b"\x8b" + struct.pack("<i", 200) + b"\x7f" * 200, "an integer of 1,599 bits"),
    "LONG of digits": (b"L" + b"9" * 100_000 + b"L\n", "Exceeds the limit"),
    "FRAME": (b"\x95" + struct.pack("<Q", 2**60) + b"N", None),
    "LONG_BINPUT": (b"Nr\xff\xff\xff\xff", None),
    "PUT": (b"Np99999999999999999999\n", "a reference that is no count"),
    "GET": (b"g7\n", "an object that it does not hold"),
    "storage": (storage(2**40, FOUR), "a storage claims 4,398,046,511,104 bytes; the file has"),
    "storage of a negative size": (storage(-4, FOUR), "a storage claims -16 bytes"),
    "storage, longer": (storage(8, FOUR), "a storage claims 32 bytes; 16 are there"),
    "storage, stated otherwise": (storage(4, FOUR, stated=2**40), "a storage claims 16 bytes"),
    "storages within storages": (storages_within(500), "a storage within a storage"),
    "tensor": (tensor(storage(4, FOUR), 0, (2**20, 2**20), (2**20, 1)), "claims more than its 4 stored values"),
    "tensor by strides of nothing": (tensor(storage(4, FOUR), 0, (2**40,), (0,)), "claims more than its 4 stored"),
    "tensor behind": (tensor(storage(4, FOUR), 3, (2,), (1,)), "claims more than its 4 stored values"),
    "tensor before": (tensor(storage(4, FOUR), -1, (2,), (1,)), "are not counts"),
    "tensor of negative strides": (tensor(storage(4, FOUR), 3, (2,), (-1,)), "are not counts"),
    "tensor of dimensions": (tensor(storage(4, FOUR), 0, (1,) * 40, (1,) * 40), "40 sizes and 40 strides"),
    "tensor of nothing": (tensor(storage(4, FOUR), 0, (0, 2**61, 2**61), (1, 1, 1)), "more places than can be counted"),
    "array": (numpy_array(2**40), "an array of 1,099,511,627,776 numbers comes with 4 bytes"),
    "array of a negative size": (numpy_array(-1), "not a list of counts"),
    "array of strings": (numpy_array(2**40, "S999999999"), None),
    "copies of a text": (
        text("x" * 100_000) + b"q\x00" + called(named("_codecs", "encode"), b"h\x00", text("latin1")) * 100,
        "many times",
    ),
    "copies of a dictionary": (
        b"](" + b"]NaNa" * 1000 + b"eq\x000" + called(named("collections", "OrderedDict"), b"h\x00") * 100,
        "many times",
    ),
    "a long name": (named("x" * 2000, "y"), "a name of 2,002 letters"),
    "lists of lists": (doubled(60, b"]", b"]h\x01ah\x01a"), None),
    "keys of keys": (b"}" + doubled(60, b")", b"h\x01\x86") + b"Ns", None),
    "a list in itself": (b"]q\x00h\x00a", None),
    "levels": (b"]" * 100_000 + b"a" * 99_999, None),
    "tuples": (b")" + b"\x85" * 100_000, None),
    "calls of calls": (SYSTEM + b")R" * 5000, r"holds os.system\(\)\(\)"),
}  # fmt: skip


@pytest.mark.parametrize("name", CLAIMS)
def test_what_a_file_claims_is_not_allocated(tmp_path: Path, name: str) -> None:
    """A few bytes that claim a terabyte are refused, and what is large only to a walker is not walked."""
    content, message = CLAIMS[name]
    with little_memory():
        result = outcome(pickled(content, 5), tmp_path / "a.pkl")
        assert isinstance(result, FormatError)
        assert re.search(message or " holds a ", str(result)), result
        outcome(pickled(b"}" + text("G_ema") + content + b"s", 5), tmp_path / "a.pkl")


def test_networks_that_are_large_only_to_a_walker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules and settings that hold themselves, or the same one again and again; one tensor under many names."""
    path = tmp_path / "a.pkl"
    monkeypatch.setattr("ohlora.formats.foreign_files.MAX_ENTRIES", 40_000)
    monkeypatch.setattr("ohlora.formats.foreign_files.MAX_MODULES", 1000)
    with nvidia_pickles.named():
        inner = nvidia_pickles.module(parameters={"bias": torch.ones(1)})
        for _ in range(40):
            inner = nvidia_pickles.module(modules={"a": inner, "b": inner})
        itself = nvidia_pickles.module()
        itself.meta["state"]["_modules"]["a"] = itself
        settings: list[object] = []
        settings.append(settings)
        grid: object = 1
        for _ in range(40):
            grid = [grid, grid]
        weight = torch.ones(5000)
        with little_memory():
            make = nvidia_pickles.module
            cases = {
                "levels": (inner, "more than 1,000 modules"),
                "itself": (itself, "more than 1,000 modules"),
                "settings": (make(_init_kwargs={"x": settings}), "more than 10,000 values or 16 levels"),
                "grid": (make(_init_args=(grid,)), "more than 10,000 values or 16 levels"),
                "array": (make(_init_args=(np.ones(20_000, np.int8),)), "more than 10,000 values"),
                "names": (make(_buffers={f"w{k}": weight for k in range(50)}), "claims 1,000,000 bytes"),
                "twice": (make(parameters={"a": torch.ones(1)}, _buffers={"a": torch.ones(1)}), "two tensors a"),
                "entries": (make(_parameters=dict.fromkeys(range(50_000))), "40,000 entries"),
                "list": (make(_parameters=[1]), "not in the form of a module"),
                "number": (make(_modules=3), "not in the form of a module"),
                "names of modules": (make(_modules=["module"]), "not in the form of a module"),
                "arguments": (make(_init_args=3), "was made with an int and a dict"),
            }
            for name, (network, message) in cases.items():
                path.write_bytes(nvidia_pickles.small(G=network))
                found = read_nvidia(path)
                assert list(found.networks) == ["G_ema"], name
                assert message in found.refused["G"], (name, found.refused)


@pytest.mark.parametrize(("shape", "stride"), [((1000, 1000), (1, 1)), ((1_000_000,), (0,))])
def test_one_storage_under_many_names(tmp_path: Path, shape: tuple[int, ...], stride: tuple[int, ...]) -> None:
    """Overlapping views take little of the file and much of the memory."""
    view = torch.zeros(1_000_000).as_strided(shape, stride)
    views = {f"w{k}": view.detach() for k in range(100)}
    torch.save({"g_ema": {"input.input": torch.ones(1)} | views}, tmp_path / "a.pt")
    file = recognize(tmp_path / "a.pt")
    with little_memory(), pytest.raises(FormatError, match=r"claims 400,000,004 bytes of tensors; the whole file has"):
        read_rosinality(file)


def archive(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED, **entries: bytes) -> None:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", content)
        for name, data in entries.items():
            file.writestr(f"archive/{name.replace('_', '/')}", data)


def zipped_tensor(numel: int) -> bytes:
    reference = b"(" + text("storage") + named("torch", "FloatStorage") + text("0") + text("cpu")
    stored = reference + b"\x8a\x08" + struct.pack("<q", numel) + b"tQ"
    return pickled(b"}" + text("g_ema") + b"}" + text("input.input") + tensor(stored, 0, (4,), (1,)) + b"ss")


def test_zip_archives_that_are_none_of_torch(tmp_path: Path) -> None:
    """Zip bombs, sizes that do not match, an entry that lies elsewhere, a byte that was changed."""
    path = tmp_path / "a.pt"
    archive(path, zipped_tensor(4), data_0=FOUR)
    assert read_rosinality(path).networks["g_ema"]["input.input"].tolist() == [1, 2, 3, 4]
    whole = path.read_bytes()
    with little_memory():
        archive(path, zipped_tensor(4), zipfile.ZIP_DEFLATED, data_0=bytes(200 << 20))
        assert path.stat().st_size < 1 << 20
        with pytest.raises(FormatError, match="damaged or no pickle: compressed entries"):
            recognize(path)
        archive(path, zipped_tensor(2**40), data_0=FOUR)
        with pytest.raises(FormatError, match="a storage claims 4,398,046,511,104 bytes; the file has"):
            recognize(path)
        archive(path, zipped_tensor(5), data_0=FOUR)
        with pytest.raises(FormatError, match="a storage claims 20 bytes; 16 are there"):
            recognize(path)
        archive(path, zipped_tensor(4))
        with pytest.raises(FormatError, match="a storage claims 16 bytes; none are there"):
            recognize(path)
        archive(path, zipped_tensor(4), data_0=FOUR, byteorder=b"big")
        with pytest.raises(FormatError, match="not in little-endian byte order"):
            recognize(path)
        central = whole.rindex(b"PK\x01\x02")
        path.write_bytes(whole[: central + 20] + struct.pack("<II", 1 << 31, 1 << 31) + whole[central + 28 :])
        with pytest.raises(FormatError, match="entries that claim more than the file has"):
            recognize(path)
        path.write_bytes(whole[: central + 42] + struct.pack("<I", len(whole) - 40) + whole[central + 46 :])
        with pytest.raises(FormatError):
            read_rosinality(path)
        at = whole.index(FOUR)
        path.write_bytes(whole[:at] + b"\x01" + whole[at + 1 :])
        with pytest.raises(
            FormatError, match=r"g_ema in .*a\.pt: input\.input: the bytes .* do not match their checksum"
        ):
            read_rosinality(path)


def test_too_many_instructions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickled(b"N0" * 2000))
    monkeypatch.setattr("ohlora.formats.pickles.MAX_OPCODES", 1000)
    with pytest.raises(FormatError, match=r"more than 1,000 instructions"):
        recognize(path)


# Damage


def files() -> dict[str, bytes]:
    """One small file of each form."""
    with nvidia_pickles.named():
        made = {f"nvidia {protocol}": nvidia_pickles.small(protocol) for protocol in (0, 2, 4)}
    for form in (True, False):
        stream = io.BytesIO()
        state = {"style.1.weight": torch.ones(3, 3), "input.input": torch.zeros(1, 2)}
        torch.save({"g_ema": state, "latent_avg": torch.ones(3)}, stream, _use_new_zipfile_serialization=form)
        made[f"rosinality {'zip' if form else 'legacy'}"] = stream.getvalue()
    return made


@pytest.mark.parametrize("name", files())
def test_truncated_files(tmp_path: Path, name: str) -> None:
    """Cut anywhere, a file is refused with one line."""
    data = files()[name]
    assert isinstance(outcome(data, tmp_path / "a"), ForeignFile)
    rng = np.random.default_rng(3)
    for cut in {*range(20), *rng.integers(20, len(data), 60).tolist(), *range(len(data) - 20, len(data))}:
        assert isinstance(outcome(data[:cut], tmp_path / "a"), FormatError), cut


@pytest.mark.parametrize("case", ["stylegan2-ada-16", "stylegan3-t-16"])
def test_truncated_golden_files(tmp_path: Path, case: str) -> None:
    data = (GOLDEN / f"{case}.pkl").read_bytes()
    for cut in np.random.default_rng(4).integers(0, len(data), 12).tolist():
        assert isinstance(outcome(data[:cut], tmp_path / "a"), FormatError), cut


@pytest.mark.parametrize("name", files())
def test_changed_bytes(
    tmp_path: Path, nothing_happens: Callable[[bytes], ForeignFile | FormatError], name: str
) -> None:
    """Whatever byte is changed, inserted or lost, a file is read or refused with one line."""
    data = files()[name]
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(120):
        changed = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            at = int(rng.integers(len(changed)))
            match int(rng.integers(4)):
                case 0:
                    changed[at] ^= 1 << int(rng.integers(8))
                case 1:
                    changed[at] = int(rng.integers(256))
                case 2:
                    changed[at:at] = rng.bytes(int(rng.integers(1, 5)))
                case _:
                    del changed[at : at + int(rng.integers(1, 5))]
        refused += isinstance(nothing_happens(bytes(changed)), FormatError)
    assert 20 < refused < 120


def test_a_pickle_file_is_what_is_documented(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"set": {1}, "frozen": frozenset([2]), "pair": (b"x", 1.5), None: True}))
    assert read_pickle(path) == PickleFile(
        {"set": [1], "frozen": [2], "pair": (b"x", 1.5), None: True}, (), path.stat().st_size
    )
