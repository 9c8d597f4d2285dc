"""The page that explains every metric of the catalogue, with its formula and source."""

from __future__ import annotations

from typing import Any

from pipeline.evaluate.metric_catalogue import CATALOGUE

WILSON = "95 % interval: Wilson 1927, “Probable inference” (score interval)"
BLOCKS = "95 % interval: circular block bootstrap, Politis and Romano 1992, over test windows"
COCO = (
    "Lin et al. 2014, “Microsoft COCO: Common Objects in Context”, arXiv:1405.0312, evaluation code"
)
IMAGES = "95 % interval: bootstrap over test images, Efron and Tibshirani 1993"
# Metric -> (formula, source).
FORMULAS = {
    "accuracy": ("images classified correctly / test images", WILSON),
    "balanced_accuracy": (
        "mean over classes of (images of the class classified correctly / images of the class)",
        "Brodersen et al. 2010, “The balanced accuracy and its posterior distribution”",
    ),
    "calibration_error": (
        "Σ over bins of (images in the bin / n) · |accuracy in the bin − mean confidence in the"
        " bin|; the confidence is the probability of the predicted class",
        "Guo et al. 2017, “On Calibration of Modern Neural Networks”, arXiv:1706.04599, eq. 3",
    ),
    **{
        f"{variant}_{key}": (f"{title} of model.{variant}.onnx", "")
        for variant in ("int8", "fp16")
        for key, title in (
            ("map50", "mAP50"),
            ("mean_iou", "mean IoU"),
            ("exact_match", "exact match"),
        )
    },
    "int8_accuracy": ("images classified correctly by model.int8.onnx / test images", ""),
    "fp16_accuracy": ("images classified correctly by model.fp16.onnx / test images", ""),
    "map50": (
        "mean over classes of the mean of the highest precision at each of 101 recalls, 0, "
        ".01, ... 1, or at a higher recall; a find is right if it overlaps a true box of its "
        "class, which no find of a higher score takes, by 50 % of their union",
        f"{COCO}; {IMAGES}",
    ),
    "map": ("mean of mAP over the overlaps 50 %, 55 %, ... 95 %", COCO),
    "mean_iou": (
        "mean over classes of (pixels that are of the class in truth and answer / pixels that"
        " are of it in either); pixels of all test images together, without void ones",
        "Long, Shelhamer and Darrell 2015, “Fully convolutional networks for semantic"
        f" segmentation”, arXiv:1411.4038, section 5; {IMAGES}",
    ),
    "pixel_accuracy": (
        "pixels of the right class / pixels that are not void",
        "Farabet et al. 2013, “Learning hierarchical features for scene labeling”, section 5",
    ),
    "class_accuracy": (
        "mean over classes of (pixels of the class that are right / pixels of the class)",
        "Farabet et al. 2013, “Learning hierarchical features for scene labeling”, section 5",
    ),
    "exact_match": (
        "captions that equal one of their references word by word / test images",
        WILSON,
    ),
    "cider": (
        "mean over test images of CIDEr-D: 10 × the cosine of the counts of n-grams, n = 1 to"
        " 4, weighted by their rarity in the references",
        "Vedantam, Zitnick and Parikh 2015, “CIDEr: Consensus-based image description"
        f" evaluation”, arXiv:1411.5726, eq. 4; {IMAGES}",
    ),
    "precision_at_5": (
        "mean over test images of (images of the same class among the 5 nearest / 5); distances"
        " are Euclidean between features",
        "Manning, Raghavan and Schütze 2008, “Introduction to Information Retrieval”, section 8.4",
    ),
    "mean_average_precision": (
        "mean over test images of the mean of the precision at the rank of each training image of"
        " the same class",
        "Manning, Raghavan and Schütze 2008, “Introduction to Information Retrieval”, section 8.4",
    ),
    "mse": ("mean of (forecast − value)²", BLOCKS),
    "mase": (
        "mean |forecast − value| / mean |value − value one season before| over the training rows",
        "Hyndman and Koehler 2006, “Another look at measures of forecast accuracy”, section 3",
    ),
    "ratio_to_best_baseline": (
        "MASE of the entry / least MASE of last value, seasonal naive, AR(4), linear window, ETS"
        " and ARIMA",
        BLOCKS,
    ),
    "coverage": (
        "values between the lowest and the highest predicted quantile / all values; ✗ if the 95 %"
        " interval of the coverage does not hold the nominal coverage",
        BLOCKS,
    ),
}
BETTER = {
    "higher": "higher is better",
    "lower": "lower is better",
    "nominal": "near the nominal value is better",
}


def metrics_context() -> dict[str, Any]:
    """Return the context of metrics.html.j2."""
    metrics = [(metric, BETTER[metric.better], *FORMULAS[key]) for key, metric in CATALOGUE.items()]
    return {"metrics": metrics}
