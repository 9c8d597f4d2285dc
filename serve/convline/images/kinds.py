"""The kinds of image models, by task. A new kind is a file beside this one, and a line here."""

from typing import Any

from convline.images.captioner import Captioner
from convline.images.classifier import Classifier
from convline.images.detector import Detector
from convline.images.image_model import ImageModel
from convline.images.segmenter import Segmenter

KINDS: dict[str, type[ImageModel[Any]]] = {
    "classification": Classifier,
    "detection": Detector,
    "segmentation": Segmenter,
    "captioning": Captioner,
}
