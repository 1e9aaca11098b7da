"""The images that a cluster's steps run in: one build command a target of the Dockerfile, tagged with the source."""

import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from uniscale.errors import MissingToolError, UniscaleError
from uniscale.profile import Profile

TOOLS = ("docker", "podman")


def build_commands(profile: Profile, tool: str = "docker", push: bool = False) -> list[list[str]]:
    """Commands that build (and push) every image of a profile; run them in the folder of the Dockerfile."""
    commands = []
    for target in profile.targets():
        image = profile.image_of(target)
        commands.append([tool, "build", "--target", target, "--tag", image, "."])
        if push:
            commands.append([tool, "push", image])
    return commands


def builder(works: Callable[[str], bool] | None = None) -> str | None:
    """docker or podman, whichever this machine has and can use (a client without its daemon cannot build)."""
    return next((tool for tool in TOOLS if (works or _works)(tool)), None)


def _works(tool: str) -> bool:
    return shutil.which(tool) is not None and subprocess.run([tool, "info"], capture_output=True).returncode == 0


def build(commands: Sequence[Sequence[str]], folder: Path) -> None:
    """Run build commands one after another.

    Raises:
        MissingToolError: `folder` has no Dockerfile.
        UniscaleError: a command failed; its own output says why.
    """
    if not (folder / "Dockerfile").exists():
        raise MissingToolError(f"no Dockerfile in {folder.resolve()}: run this in a checkout of the project")
    for command in commands:
        done = subprocess.run(command, cwd=folder)
        if done.returncode:
            raise UniscaleError(f"{' '.join(command)} ended with {done.returncode}: its output above says why")
