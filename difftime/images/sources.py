"""Images by one word: the name of a data set, or a path."""

from __future__ import annotations

from pathlib import Path

from difftime.images.kinds import KINDS, TORCHVISION, NotPlain, guessed
from difftime.images.readers import OWN, BadImages, ImageData, load_images
from difftime.support.files import expanded


def images_at(source: str, data_dir: Path, test_share: float) -> ImageData:
    """The data set that `source` names, or the images at that path. Raises BadImages.

    Of images that are not split into training and test images, `test_share` are test images.
    """
    named = [kind for kind, one in KINDS.items() if not one.needs]
    if source in named:
        return load_images(source, **({"data_dir": expanded(data_dir)} if KINDS[source].data_dir else {}))
    if source in TORCHVISION:
        return load_images("torchvision", name=source, data_dir=expanded(data_dir))
    path = expanded(source)
    if not path.exists():
        raise BadImages(
            f"{source} is no data: nothing is at this path, and it is not {', '.join([*named, *TORCHVISION])}."
        )
    try:
        kind = guessed(path)
    except NotPlain as error:
        raise BadImages(str(error)) from None
    return load_images(kind, path=path, test_share=None if OWN[kind](path) else test_share)
