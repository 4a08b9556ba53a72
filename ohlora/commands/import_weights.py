"""Converts weights of StyleGAN, StyleGAN2 and StyleGAN3 in files of others into ohlora's network files.

Several files of one filter CNN become one file, the ensemble that averages them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohlora import pipeline
from ohlora.errors import ConfigError
from ohlora.utils import checks, mistakes
from ohlora.utils.commands import arguments, command
from ohlora.utils.files import content_stamp
from ohlora.worlds import DEFAULT, SHIPPED

if TYPE_CHECKING:
    from ohlora.formats import foreign


def convert(
    source: Path, destination: Path, raw: bool, labels: int, seed: int, classes: Sequence[int] | None = None
) -> None:
    """Reads all of a file of weights, then writes its networks; of a generator's classes, only those are drawn."""
    import torch

    from ohlora.formats import foreign, network_files
    from ohlora.networks.generator import Generator

    found = foreign.read_foreign(source, raw)
    networks: Mapping[str, foreign.ForeignNetwork] = found.networks
    provenance: dict[str, Any] = {**_origin([source]), "averaged": found.averaged}
    if labels:
        try:
            torch.manual_seed(seed)
            networks = {name: _labelled(network, labels) for name, network in networks.items()}
        except ValueError as error:
            raise ConfigError(f"--add-labels {labels}: {error}") from error
        provenance["labels_added"] = labels
    if classes is not None:
        _choose_classes(networks.get("generator"), classes, source)
        provenance["classes"] = list(classes)
    for name, network in networks.items():
        path = destination / f"{name}.safetensors"
        entry = ", ".join(word for word in (found.source, found.entries.get(name)) if word)
        network_files.save_network(network, path, provenance | {"entry": entry})
        kind = "averaged weights" if isinstance(network, Generator) and found.averaged else "weights"
        print(f"{path}: {name}, {_sizes(network)}, {kind} of {source.name} ({entry})")
    for note in found.notes:
        print(mistakes.line(f"{source}: {note}"))


def convert_ensemble(sources: Sequence[Path], destination: Path) -> None:
    """Reads several files of one attribute CNN and writes the ensemble of them.

    Raises:
        ConfigError: If the files do not hold the same attribute CNN.
    """
    from ohlora.formats import foreign, network_files
    from ohlora.networks.attribute_cnn import AttributeCNN, AttributeEnsemble

    digests = [network_files.fingerprint(source) for source in sources]
    for source, digest in zip(sources, digests, strict=True):
        if (first := sources[digests.index(digest)]) is not source:
            raise ConfigError(f"{source} holds the same as {first}; an ensemble needs each of its members once")
    members: list[AttributeCNN] = []
    names: list[str] = []
    for source in sources:
        ((name, network),) = list(foreign.read_foreign(source).networks.items())[:1]
        if not isinstance(network, AttributeCNN) or (names and name != names[0]):
            found = ", ".join(dict.fromkeys([*names, name]))
            raise ConfigError(f"{source} holds a {name} (found: {found}); several files make one ensemble of one CNN")
        members.append(network)
        names.append(name)
    path = destination / f"{names[0]}.safetensors"
    network_files.save_network(AttributeEnsemble.of(members), path, _origin(sources))
    print(f"{path}: {names[0]}, {_sizes(members[0])}, ensemble of {len(members)}")


def _origin(sources: Sequence[Path]) -> dict[str, Any]:
    names, digests = [s.name for s in sources], [str(content_stamp(s))[:16] for s in sources]
    return {"source": ", ".join(names), "sha256": ", ".join(digests)}


def _labelled(network: foreign.ForeignNetwork, labels: int) -> foreign.ForeignNetwork:
    from ohlora.networks.attribute_cnn import AttributeCNN
    from ohlora.networks.surgery import add_labels

    if isinstance(network, AttributeCNN):
        raise ConfigError("an attribute CNN takes no labels; leave --add-labels out")
    return add_labels(network, labels)


def _choose_classes(network: foreign.ForeignNetwork | None, classes: Sequence[int], source: Path) -> None:
    from ohlora.networks.generator import Generator

    if not isinstance(network, Generator) or network.labels != "dataset":
        raise ConfigError(f"--classes: {source} holds no generator of classes; leave it out")
    last = network.c_dim - 1
    if any(not 0 <= number <= last for number in classes):
        raise ConfigError(f"--classes is {' '.join(map(str, classes))}; the classes of {source} are 0 to {last}")
    network.set_labels("dataset", network.label_table[list(dict.fromkeys(classes))])


def _sizes(network: foreign.ForeignNetwork) -> str:
    from ohlora.networks.attribute_cnn import AttributeCNN

    if isinstance(network, AttributeCNN):
        return f"{network.resolution}×{network.resolution}, {', '.join(network.outputs)}"
    return f"{network.kind}, {network.resolution}×{network.resolution}, {network.c_dim} label values"


@command("ohlora import-weights")
def main(args: list[str] | None = None) -> None:
    """Runs the command."""
    parser = arguments(
        "import-weights",
        "Converts weights into ohlora's files: NVIDIA's .pkl (StyleGAN2, StyleGAN3), rosinality's .pt, checkpoints of "
        "GenForce and Oh-LoRA, told apart by what is in them. Nothing in a file is run. Several of one filter CNN make "
        "an ensemble.",
        "ffhq.pkl artifacts/original",
        "afhq.pkl artifacts/cats --classes 0",
        "stylegan_celeba_partial256x256.pth artifacts/original_labelled --add-labels",
        "gender_model_0.pt gender_model_1.pt gender_model_2.pt artifacts/imported_v1",
    )
    parser.add_argument("sources", type=Path, nargs="+", metavar="SRC", help="the file, of any name; or several")
    parser.add_argument("destination", type=Path, metavar="DEST_DIR", help="folder for what is in it")
    parser.add_argument("--raw", action="store_true", help="take the generator as trained even if there is an average")
    parser.add_argument(
        "--add-labels",
        type=int,
        nargs="?",
        default=0,
        metavar="K",
        help="add K label inputs to both networks, not of StyleGAN3 (without K: one for each label of the world)",
    )
    parser.add_argument(
        "--classes",
        type=int,
        nargs="+",
        metavar="NUMBER",
        help="of a conditional NVIDIA file, draw these classes only, counted from 0 (default: all, equally often)",
    )
    parser.add_argument(
        "--world", default=DEFAULT, help=f"whose labels: {', '.join(SHIPPED)}, or a world's file (default: {DEFAULT})"
    )
    parser.add_argument("--seed", type=int, metavar="S", default=0, help="seed of the new label embedding (default: 0)")
    given = parser.parse_args(args)
    checks.seeds(seed=given.seed)
    for source in given.sources:
        pipeline.require(source)
    if given.add_labels is None:
        declared = pipeline.world(given.world).attributes
        given.add_labels = len(declared.names("label"))
        if not given.add_labels:
            raise ConfigError(f"--add-labels: {declared.where} declares no label; say how many, or leave it out")
    if len(given.sources) > 1:
        if given.raw or given.add_labels or given.classes:
            options = "--raw, --add-labels and --classes"
            raise ConfigError(f"several files make one ensemble of a filter CNN; leave {options} out")
        convert_ensemble(given.sources, given.destination)
    else:
        convert(given.sources[0], given.destination, given.raw, given.add_labels, given.seed, given.classes)
