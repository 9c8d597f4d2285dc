"""The pictures of `infer images --masks FOLDER --draw FOLDER`: one PNG for each image.

A picture has the path of its image below the folder, with .png behind it, so that no two have the
same name, in whichever order and by however many workers they are written. A text in the PNG marks
it as ours; nothing else is ever replaced.
"""

import errno
import io
import os
from contextlib import suppress
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from convline.errors import InputError, ServeError
from convline.images.image_model import Answer, ImageModel, Options
from convline.images.segmenter import Segmentation
from convline.images.sources import FileContents, read_original
from convline.jobs.output_files import follow_link, part_of, write_file
from convline.runtime.sources import Source

MARK = b"tEXtSoftware\0convline"
HEAD = 4096  # bytes of a PNG; the mark comes before the pixels
ROOT, UP = "_root", "_up"  # in place of parts of a path that would lead out of the folder


def write_pictures(
    model: ImageModel[Answer], source: Source, answer: Answer, options: Options
) -> Answer | str:
    """Write the pictures that the options ask for.

    Return the answer, with the name of its mask; or the reason why the image has no picture.
    """
    try:
        if options.masks is not None and isinstance(answer, Segmentation):
            name = write_picture("--masks", options.masks, source, answer.picture())
            answer = answer._replace(file=name)
        if options.draw is not None:
            drawn = model.draw(read_original(source, model.rule), answer)
            write_picture("--draw", options.draw, source, drawn)
    except InputError as error:
        return error.reason
    return answer


def write_picture(option: str, folder: str, source: Source, picture: Image.Image) -> str:
    """Write the picture of an image; return its path below the folder.

    InputError if the image's name is too long for another suffix; ServeError if an input is in the
    folder, or if a folder or file of someone else is in the way.
    """
    root = follow_link(folder)
    # The bytes of an archive's member may be in memory too; its path leads nowhere.
    is_read = isinstance(source.member, FileContents) and os.path.lexists(source.path)
    if (source.member is None or is_read) and follow_link(source.path).is_relative_to(root):
        expected = f"expected a folder apart from the inputs, got one that holds {source.path}"
        raise ServeError(f"{option} {folder}: {expected}; choose another")
    name = picture_name(source.path)
    target, content, mark = root / name, io.BytesIO(), PngInfo()
    mark.add_text("Software", "convline")
    picture.save(content, "PNG", pnginfo=mark, compress_level=1)
    try:
        if target.is_symlink() or follow_link(str(target.parent)) != target.parent:
            expected = f"expected folders and files of its own, got a link at {name}"
            raise ServeError(f"{option} {folder}: {expected}; remove it")
        target.parent.mkdir(parents=True, exist_ok=True)
        # write_file would end the job for a name that is too long
        with suppress(FileNotFoundError):
            os.lstat(part_of(str(target)))
        write_file(str(target), content.getvalue(), is_picture)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise InputError(source.path, f"its name is too long for {option}") from error
        raise ServeError(f"{target}: cannot be written ({error.strerror})") from error
    return name


def picture_name(path: str) -> str:
    """Return the path of an image's picture below its folder.

    The root and ".." become ROOT and UP; what has such a name already gets one more "_".
    """
    anchor = Path(path).anchor  # "/", and "//" of a path that begins so
    parts = [_plain_name(part) for part in Path(path).parts[bool(anchor) :]]
    return str(Path(*[ROOT] * bool(anchor), *parts)) + ".png"


def _plain_name(part: str) -> str:
    is_taken = part.startswith("_") and f"_{part.lstrip('_')}" in (ROOT, UP)
    return UP if part == ".." else f"_{part}" if is_taken else part


def is_picture(path: Path) -> bool:
    """Return whether a file is a picture that this module wrote."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    return head.startswith(b"\x89PNG") and MARK in head
