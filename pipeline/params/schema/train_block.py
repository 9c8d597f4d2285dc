"""`train:` of a recipe: optimizer, schedule, loss, regularisation and augmentation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, Strict, model_validator

from pipeline.params.schema.block import NonNegative, Part, Positive, Rising, Seed, Share

AreaShare = Annotated[float, Field(gt=0, le=1)]
Aspect = Annotated[float, Field(ge=0.1, le=10)]  # width over height


class Augment(Part):
    """`train.augment`: random changes of training images."""

    rotate: NonNegative = Field(0.0, description="largest angle in degrees, either way")
    shift: Share = Field(0.0, description="largest shift as a fraction of height and width")
    zoom: Annotated[
        tuple[Annotated[float, Field(ge=0.01)], Annotated[float, Field(ge=0.01)]],
        Strict(False),
        Rising,
    ] = Field((1.0, 1.0), description="least and largest scale")
    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        "none", description="mirror half of the images"
    )
    crop_pad: int = Field(
        0, ge=0, description="pad by this many pixels, then crop the old size at random"
    )
    colour: NonNegative = Field(
        0.0, description="AlexNet's colour change: standard deviation of the PCA coefficients"
    )
    crop: Literal["none", "random", "random_resized"] = Field(
        "none",
        description=(
            "`data.layout: shards` only, what is cut out of a photo; random: the input's size, from"
            " the central square of `shorter_px` pixels; random_resized: a part of random area and"
            " aspect ratio"
        ),
    )
    area: Annotated[tuple[AreaShare, AreaShare], Strict(False), Rising] = Field(
        (0.08, 1.0), description="random_resized only: least and largest share of the photo's area"
    )
    aspect: Annotated[tuple[Aspect, Aspect], Strict(False), Rising] = Field(
        (3 / 4, 4 / 3),
        description="random_resized only: least and largest ratio of width to height",
    )
    policy: Literal["none", "randaugment", "trivialaugment"] = Field(
        "none",
        description=(
            "torchvision's, before the others: randaugment: two operations of one magnitude (Cubuk"
            " et al. 2020, arXiv:1909.13719); trivialaugment: one of any (Müller & Hutter 2021,"
            " arXiv:2103.10158), which turns by up to 135 degrees"
        ),
    )
    magnitude: int = Field(9, ge=0, le=30, description="randaugment only: of the operations")
    erase: Share = Field(
        0.0,
        description=(
            "probability that a rectangle gets the training images' mean colour, after the others"
            " (random erasing, Zhong et al. 2020, arXiv:1708.04896)"
        ),
    )


class Train(Part):
    """`train:` of a recipe: optimizer, schedule, loss, regularisation."""

    epochs: int = Field(
        30,
        ge=0,
        description=(
            "passes over the training split; 0: published weights as they are, or those of `start:"
            " closed_form`, and the default of a head on features"
        ),
    )
    batch: int = Field(64, ge=2, description="rows of a batch")
    optimizer: Literal["sgd", "adam", "adamw", "adadelta", "rmsprop"] = Field(
        "adam", description="the optimizer"
    )
    lr: NonNegative = Field(1e-3, description="learning rate")
    momentum: Share = Field(0.9, description="sgd and rmsprop only")
    nesterov: bool = Field(
        False, description="sgd only: Nesterov's momentum (Sutskever et al. 2013)"
    )
    weight_decay: NonNegative = Field(
        0.0, description="the optimizer's own: adds weight_decay * w to the gradient"
    )
    schedule: Literal["constant", "step", "cosine", "onecycle"] = Field(
        "constant",
        description=(
            "how the learning rate changes; cosine: Loshchilov & Hutter 2017, arXiv:1608.03983"
        ),
    )
    warmup: int = Field(
        0,
        ge=0,
        description=(
            "epochs of linear warm-up before the schedule (Goyal et al. 2017, arXiv:1706.02677)"
        ),
    )
    steps: list[int] = Field(
        [], description="schedule step only: epochs after which lr is multiplied by `factor`"
    )
    every: Positive | None = Field(
        None, description="schedule step only, in place of `steps`: after each so many epochs"
    )
    factor: NonNegative = Field(0.1, description="schedule step only: what lr is multiplied by")
    loss: Literal["auto", "cross-entropy", "softmax-clip", "mse", "pinball"] = Field(
        "auto",
        description="auto: cross-entropy for images, mse for series; pinball trains the quantiles",
    )
    start: Literal["random", "closed_form"] = Field(
        "random",
        description=(
            "forecasting only; closed_form: linear maps of windows are solved for by least squares"
            " (Toner & Darlow 2024, arXiv:2403.14587) and not trained; 0 epochs if nothing else is"
        ),
    )
    ridge: NonNegative = Field(
        1e-3,
        description=(
            "start closed_form only: what is added to the variances of a window's rows, a share of"
            " their mean"
        ),
    )
    aux_weight: NonNegative = Field(
        0.3, description="weight of each auxiliary head's loss, or of each further member's"
    )
    label_smoothing: Share = Field(
        0.0, description="cross-entropy only (Szegedy et al. 2016, arXiv:1512.00567, section 7)"
    )
    mixup: NonNegative = Field(
        0.0,
        description=(
            "classification only: each batch is mixed with itself, images and labels, by a share"
            " from Beta(mixup, mixup) (Zhang et al. 2018, arXiv:1710.09412)"
        ),
    )
    cutmix: NonNegative = Field(
        0.0,
        description=(
            "the same with a rectangle of each image, whose area is from Beta(cutmix, cutmix) (Yun"
            " et al. 2019, arXiv:1905.04899); with mixup, each batch gets one of the two"
        ),
    )
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0,
        description=(
            "decay of the exponential moving average of the weights, which is then what is"
            " validated, chosen and shipped (Polyak & Juditsky 1992); 0: the weights themselves"
        ),
    )
    balance: Share = Field(
        0.0,
        description=(
            "segmentation only: a pixel weighs n ** -balance, n the pixels of its class in the"
            " batch; 0: every pixel alike, 1: every class alike"
        ),
    )
    l1: NonNegative = Field(0.0, description="adds l1 * sum |w| to the loss")
    l2: NonNegative = Field(0.0, description="adds l2 * sum w^2 to the loss, or half of that")
    l2_convention: Literal["full", "half"] = Field("full", description="half: l2 / 2 * sum w^2")
    clip_norm: NonNegative | None = Field(None, description="largest norm of the gradient")
    patience: Positive | None = Field(
        None, description="stop after so many epochs without a better validation loss"
    )
    choose: Literal["best", "last"] = Field(
        "best", description="which epoch's weights ship; best: of the validation loss"
    )
    precision: Literal["auto", "fast", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 on a GPU that computes in it; fast: on such a CPU, too"
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="torch.compile; auto: on a GPU where it pays"
    )
    augment: Augment | None = Field(
        None, description="random changes of training images; masks move with them"
    )
    snapshots: list[int] = Field([], description="epochs whose weights are kept for the report")
    seed: Seed = Field(1, description="seed of weights, order, dropout and augmentation")

    @model_validator(mode="after")
    def require_steps_below_epochs(self) -> Self:
        if self.steps and self.steps[-1] >= self.epochs:
            what = f"expected epochs below {self.epochs}, got {self.steps}"
            raise ValueError(f"steps: {what}; drop the last")
        return self


class ResolvedTrain(Train):
    """A checked `train:` block, and of loss pinball the quantile levels that the loss is for."""

    levels: list[float] = Field([])
