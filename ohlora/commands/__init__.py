"""The commands of ``ohlora``: a file for each that neither trains nor predicts, and the table of all.

The table imports nothing, so that ``ohlora --help`` and a mistyped command are answered at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Entry(NamedTuple):
    """A command of the table.

    Attributes:
        module: The module whose ``main`` runs it with the words after its name; that of a stage's command also gets the
            name.
        about: What it does, in one line.
        group: The heading under which it is listed.
    """

    module: str
    about: str
    group: str


STAGES, IMAGES, FILES, CHARACTERS, AROUND = (
    "stages",
    "images and networks",
    "weights of other projects",
    "characters",
    "overview",
)

COMMANDS: Mapping[str, Entry] = {
    "fit": Entry("ohlora.commandline", "train a stage", STAGES),
    "validate": Entry("ohlora.commandline", "measure a stage on validation data", STAGES),
    "test": Entry("ohlora.commandline", "measure a stage on test data", STAGES),
    "predict": Entry("ohlora.commandline", "make or score images", STAGES),
    "finish": Entry("ohlora.commands.finish", "make the product of a training that was stopped early", IMAGES),
    "draw-faces": Entry("ohlora.commands.draw_faces", "draw faces whose attributes are known", IMAGES),
    "filter": Entry("ohlora.commands.filter", "keep the images whose scores pass rules", IMAGES),
    "rank": Entry("ohlora.commands.rank", "make scores from comparisons of two images", IMAGES),
    "merge": Entry("ohlora.commands.merge", "join attribute networks into one", IMAGES),
    "evaluate": Entry("ohlora.commands.evaluate", "measure how good a generator is, against real images", IMAGES),
    "select": Entry("ohlora.commands.select", "rank the faces that follow their edits, and show them", CHARACTERS),
    "export-character": Entry("ohlora.commands.export_character", "write a face as a character file", CHARACTERS),
    "animate": Entry("ohlora.commands.animate", "play a character into a GIF, WebP, MP4 or WebM", CHARACTERS),
    "import-weights": Entry("ohlora.commands.import_weights", "read the weights of other projects", FILES),
    "export-weights": Entry("ohlora.commands.export_weights", "write weights as other projects read them", FILES),
    "import-directions": Entry("ohlora.commands.import_directions", "read directions of other projects", FILES),
    "new": Entry("ohlora.commands.new", "start a world of your own from images and a table", AROUND),
    "demo": Entry("ohlora.commands.demo", "run the chain at a small size; ends with a page", AROUND),
    "doctor": Entry("ohlora.doctor", "say what is installed, what has been made, and what to run next", AROUND),
    "pipeline": Entry("ohlora.generated", "list the stages of a world and their commands; write dvc.yaml", AROUND),
    "studio": Entry("ohlora.studio.server", "label images, choose and steer characters, in the browser", AROUND),
    "completion": Entry("ohlora.completion", "print what makes the Tab key of a shell complete commands", AROUND),
}
"""Name → command, in the order in which they are listed."""
