"""``ohlora studio``: reads the command line, refuses unsafe settings, and starts the server."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from pathlib import Path

from ohlora.errors import ConfigError, MissingArtifactError
from ohlora.utils.commands import Parser, command
from ohlora.utils.locks import Lock
from ohlora.worlds import SHIPPED

LOCAL = "127.0.0.1"
"""The address that is reachable from this machine only."""
USER = "ohlora"
"""User name that goes with the password."""
PASSWORD = "OHLORA_STUDIO_PASSWORD"
"""Environment variable of the password."""
FOLDER = "ohlora-studio-"
"""How the name of a studio's temporary folder begins."""


def parser() -> Parser:
    """Builds the parser of the command line."""
    found = Parser(prog="ohlora studio", description="Label images, choose characters and steer them, in the browser.")
    found.add_argument(
        "--world", default="toy", help=f"{', '.join(SHIPPED)}, or the path of a world's file (default: toy)"
    )
    found.add_argument(
        "--demo", action="store_const", const="demo", dest="world", help="open the artifacts of `ohlora demo`"
    )
    found.add_argument(
        "--images",
        type=Path,
        help="folder of the images to label (default: the images of generate_v1, or of generate_original)",
    )
    found.add_argument(
        "--annotations", type=Path, help="table of labels (default: labels/labels_2k.csv below the artifacts)"
    )
    found.add_argument(
        "--attributes", nargs="+", metavar="NAME", help="attributes to label at first (default: the filters)"
    )
    found.add_argument("--filters", nargs="*", type=Path, help="filter ensembles for the orders uncertain and disputed")
    found.add_argument("--test", type=Path, help="folder of the evaluation of edits to choose from")
    found.add_argument("--generator", type=Path, help="the generator that was tested")
    found.add_argument("--host", default=LOCAL, help=f"address to serve on (default: {LOCAL}); others need --password")
    found.add_argument("--port", type=int, default=7860, help="port (default: 7860)")
    found.add_argument(
        "--password",
        default=os.environ.get(PASSWORD),
        help=f"asked of every visitor, with the user name {USER}; set it in {PASSWORD} to hide it from other users",
    )
    found.add_argument("--no-browser", action="store_true", help="do not open a browser")
    return found


def remove_left_behind(parent: Path) -> None:
    """Removes the temporary folders of studios that were killed: their lock is there, and nobody holds it."""
    for folder in parent.glob(f"{FOLDER}*"):
        if folder.stat().st_uid != os.getuid() or not (folder / ".lock").exists():
            continue
        try:
            lock = Lock(folder)
        except ConfigError:  # a studio that runs
            continue
        shutil.rmtree(folder)
        lock.release()


@command("ohlora studio")
def main(args: list[str] | None = None) -> None:
    """Runs the server until it is stopped."""
    given = parser().parse_args(args)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    try:
        import gradio  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingArtifactError("the studio needs Gradio: pip install 'ohlora[studio]'") from error
    if given.host != LOCAL and not given.password:
        raise ConfigError(
            f"--host {given.host} lets others connect; give a --password too (or {PASSWORD}), or leave out --host"
        )
    from ohlora.studio.app import HEAD, STYLE, build, steerable, theme
    from ohlora.studio.gallery import choosing
    from ohlora.studio.settings import Settings

    settings, local = Settings.of(given), given.host == LOCAL
    remove_left_behind(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=FOLDER) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder  # images that were shown are removed at the end
        lock, app = Lock(folder), build(settings)
        try:
            _, address, _ = app.launch(
                server_name=given.host,
                server_port=given.port,
                auth=(USER, given.password) if given.password else None,
                inbrowser=not given.no_browser,
                share=False,
                allowed_paths=[],
                head=HEAD,
                css=STYLE,
                theme=theme(),
                footer_links=[],
                ssr_mode=False,
                app_kwargs={"routes": [choosing(settings, local), steerable(settings).route(local)]},
                quiet=True,
                prevent_thread_lock=True,
            )
            print(f"studio of the world {given.world}: {address} (Ctrl-C stops)", flush=True)
            threading.Event().wait()
        except OSError as error:
            if "empty port" not in str(error):  # Gradio has no error class of its own for a port in use
                raise
            raise ConfigError(f"port {given.port} is in use; choose another one with --port") from error
        finally:
            app.close(verbose=False)
            lock.release()
