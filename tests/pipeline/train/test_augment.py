"""Augmentation: what each transform does to the pixels, and that every image is transformed
independently.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from convline.metrics.segmentation import VOID
from torch.nn import functional as F

from pipeline.params.schema import Augment
from pipeline.train import augment

pytestmark = pytest.mark.slow  # the first import of torchvision takes 4-10 s


def build(images: torch.Tensor, **options: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return what augments images; their classes stay as they are."""
    torch.manual_seed(0)
    change = augment.build(Augment(**options), images)

    def augmented(batch: torch.Tensor) -> torch.Tensor:
        classes = torch.arange(len(batch))
        after, y = change(batch, classes)
        assert y is classes
        return after

    return augmented


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(
        0, 256, (12, 3, 8, 6), generator=torch.Generator().manual_seed(1), dtype=torch.uint8
    )


def test_no_augmentation_changes_nothing(images: torch.Tensor) -> None:
    classes = torch.arange(12)
    assert augment.build(None, images)(images, classes) == (images, classes)
    assert torch.equal(build(images)(images), images)


@pytest.mark.parametrize(("flip", "axes"), [("horizontal", [(), (3,)]), ("vertical", [(), (2,)])])
def test_flips_mirror_some_images(
    images: torch.Tensor, flip: str, axes: list[tuple[int, ...]]
) -> None:
    """Each image is itself or its mirror image, and both occur."""
    after = build(images, flip=flip)(images)
    which = [
        [torch.equal(a, b.flip([d - 1 for d in axis])) for axis in axes]
        for a, b in zip(after, images, strict=True)
    ]
    assert all(sum(row) == 1 for row in which)
    assert {row.index(True) for row in which} == {0, 1}


def test_both_flips_give_four_images(images: torch.Tensor) -> None:
    one = images[:1].expand(64, -1, -1, -1)
    after = build(images, flip="both")(one)
    assert {a.numpy().tobytes() for a in after} == {
        images[0].flip(dims).numpy().tobytes() for dims in ([], [1], [2], [1, 2])
    }


@pytest.mark.parametrize(
    "options", [{"rotate": 30}, {"shift": 0.5}, {"zoom": [0.5, 1.5]}, {"crop_pad": 3}], ids=str
)
def test_every_image_has_its_own_draw(images: torch.Tensor, options: dict[str, Any]) -> None:
    """12 equal images become at least 8 different ones (a shift has 49 or 63 places); the shape
    stays.
    """
    equal = images[:1].expand(12, -1, -1, -1)
    after = build(equal, **options)(equal)
    assert after.shape == equal.shape
    assert len({image.numpy().tobytes() for image in after}) >= 8


@pytest.mark.parametrize(
    "options",
    [
        {"rotate": 40},
        {"zoom": [0.5, 1.5]},
        {"shift": 0.4},
        {"rotate": 170, "zoom": [0.5, 2.0], "shift": 0.3},
    ],
    ids=str,
)
def test_affine_equals_torchvision(images: torch.Tensor, options: dict[str, Any]) -> None:
    """torchvision's affine on one image at a time, with the numbers that were drawn."""
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2.functional import affine

    change = build(images, **options)
    torch.manual_seed(5)
    after = change(images)
    torch.manual_seed(5)
    turn, shift, scales = (
        options.get("rotate", 0),
        options.get("shift", 0),
        options.get("zoom", (1, 1)),
    )
    ranges = ((-turn, turn), scales, (-shift, shift), (-shift, shift))
    angle, zoom, right, down = (torch.empty(len(images)).uniform_(*span) for span in ranges)
    for i, image in enumerate(images.float()):
        moved = [int((right[i] * 6).round()), int((down[i] * 8).round())]
        bilinear = InterpolationMode.BILINEAR
        expected = affine(
            image, float(angle[i]), moved, float(zoom[i]), [0.0, 0.0], interpolation=bilinear
        )
        torch.testing.assert_close(after[i], expected, rtol=0, atol=0.05)


def test_a_shift_moves_whole_images(images: torch.Tensor) -> None:
    """A bright row and column stay a row and a column: at most 25 % of 8 is 2 pixels."""
    cross = torch.zeros(200, 1, 8, 8)
    cross[:, :, 4, 4] = 255
    after = build(cross, shift=0.25)(cross.byte()).round()
    places = torch.nonzero(after[:, 0] == 255)
    assert len(places) == 200
    moved = places[:, 1:] - 4
    assert moved.abs().max() == 2 and len(moved.unique(dim=0)) == 25


def test_random_crops_are_the_image_moved_with_a_black_border(images: torch.Tensor) -> None:
    """crop_pad 2 on 8 x 8 gives 5 x 5 places, each a window of the padded image."""
    image = images[:1, :, :6, :6]
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    windows = {
        padded[0, :, i : i + 6, j : j + 6].numpy().tobytes() for i in range(5) for j in range(5)
    }
    after = build(image, crop_pad=2)(image.expand(300, -1, -1, -1))
    assert {a.numpy().tobytes() for a in after} == windows


def test_pca_colour_follows_the_training_pixels(images: torch.Tensor) -> None:
    """numpy's covariance C of the training pixels: the added colours have covariance sigma^2 C."""
    rng = np.random.default_rng(0)
    mix = np.array([[20, 0, 0], [15, 8, 0], [10, 4, 2.0]])
    pixels = (128 + rng.standard_normal((500, 4, 4, 3)) @ mix.T).clip(0, 255).astype(np.uint8)
    train = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    grey = torch.full((4000, 3, 2, 2), 128, dtype=torch.uint8)
    added = build(train, colour=0.1)(grey) - 128.0  # (N, 3, 2, 2)
    assert (added == added[:, :, :1, :1]).all()  # one colour for the whole image
    expected = 0.01 * np.cov(pixels.reshape(-1, 3).T)
    np.testing.assert_allclose(np.cov(added[:, :, 0, 0].T.numpy()), expected, rtol=0.1, atol=0.02)


@pytest.mark.parametrize("channels", [1, 3])
def test_colour_stays_within_grey_levels(images: torch.Tensor, channels: int) -> None:
    after = build(images[:, :channels], colour=5.0)(images[:, :channels])
    assert after.shape == images[:, :channels].shape and after.dtype == torch.float32
    assert after.min() == 0 and after.max() == 255


def test_equal_seeds_give_equal_augmentations(images: torch.Tensor) -> None:
    options = {
        "rotate": 10,
        "shift": 0.1,
        "zoom": [0.9, 1.1],
        "flip": "both",
        "crop_pad": 1,
        "colour": 0.1,
    }
    change = build(images, **options)
    torch.manual_seed(3)
    first = change(images)
    assert not torch.equal(first, change(images))
    torch.manual_seed(3)
    assert torch.equal(first, change(images))


@pytest.mark.parametrize(
    "options",
    [{"flip": "both"}, {"crop_pad": 3}, {"shift": 0.3}, {"rotate": 60}, {"zoom": [0.5, 2.0]}],
    ids=str,
)
def test_a_mask_moves_with_its_image(options: dict[str, Any]) -> None:
    """Images are masks drawn in grey levels, ground 100 and ink 200: a moved mask is the level of
    its moved image, and VOID where that is 0, outside. Turned or scaled, grey levels mix at edges.
    """
    y = torch.zeros(40, 12, 16, dtype=torch.uint8)
    y[:, 2:8, 3:12] = 1
    x = (100 + 100 * y)[:, None].expand(-1, 3, -1, -1)
    torch.manual_seed(0)
    after, masks = augment.build(Augment(**options), x)(x, y)
    assert masks.dtype == torch.uint8 and masks.shape == y.shape and not torch.equal(masks, y)
    level = (after[:, 0].float() / 100).round()
    agree = (torch.where(masks == VOID, 0, masks + 1) == level).float().mean((1, 2))
    mixed = bool({"rotate", "zoom"} & options.keys())
    assert agree.min() > 0.9 if mixed else agree.min() == 1
    assert (masks == VOID).any() != ("flip" in options)


def test_what_is_void_stays_void() -> None:
    y = torch.full((8, 6, 6), VOID, dtype=torch.uint8)
    x = torch.zeros(8, 3, 6, 6, dtype=torch.uint8)
    change = augment.build(Augment(rotate=20, zoom=(0.8, 1.2), flip="both", crop_pad=1), x)
    assert torch.equal(change(x, y)[1], y)


def test_a_mask_keeps_its_classes_where_colours_change(images: torch.Tensor) -> None:
    y = torch.randint(0, 5, (12, 8, 6), dtype=torch.uint8)
    after, masks = augment.build(Augment(colour=1.0), images)(images, y)
    assert masks is y and not torch.equal(after, images)


@pytest.mark.parametrize("options", [{"policy": "trivialaugment"}, {"policy": "randaugment"}])
def test_a_policy_is_torchvisions(images: torch.Tensor, options: dict[str, Any]) -> None:
    """torchvision's transform on each image, seeded by the number that was drawn for it."""
    from torchvision.transforms import v2

    kind = {"trivialaugment": v2.TrivialAugmentWide, "randaugment": v2.RandAugment}
    transform = kind[options["policy"]](interpolation=v2.InterpolationMode.BILINEAR)
    change = build(images, **options)
    torch.manual_seed(5)
    after, following = change(images), torch.rand(1)
    torch.manual_seed(5)
    seeds = augment.seeds_of(len(images))
    assert torch.equal(following, torch.rand(1))  # what comes after draws as if nothing had
    for image, seed, changed in zip(images, seeds, after, strict=True):
        torch.manual_seed(int(seed))
        assert torch.equal(changed, transform(image))
    assert sum(not torch.equal(a, b) for a, b in zip(after, images, strict=True)) > 6


def test_a_policy_takes_the_chosen_images_from_the_cpu(images: torch.Tensor) -> None:
    """On a GPU, batch and images on the CPU are two: the rows say which images are in the batch."""
    change, rows = augment.build(Augment(policy="randaugment"), images), torch.tensor([7, 2])
    torch.manual_seed(5)
    expected, _ = change(images[rows], rows)
    torch.manual_seed(5)
    assert torch.equal(change(torch.zeros_like(images[rows]), rows, 2, rows)[0], expected)


def test_erased_rectangles_have_the_mean_colour() -> None:
    """By the paper's limits: an area of .02 to .33 (to half a pixel a side), in half the images."""
    black = torch.zeros(400, 3, 32, 32, dtype=torch.uint8)
    images = torch.cat([black[:1] + 40, black[:1] + 51])
    after = build(images, erase=0.5)(black)
    mean = images.double().mean((0, 2, 3)).float()
    hole = (after == mean[:, None, None]).all(1)  # (N, H, W)
    assert torch.equal(after, torch.where(hole[:, None], mean[:, None, None], 0.0))
    erased = hole.any((1, 2))
    assert 160 < int(erased.sum()) < 240
    for each in hole[erased]:
        height, width = int(each.any(1).sum()), int(each.any(0).sum())
        assert int(each.sum()) == height * width  # one rectangle
        assert (height - 0.5) * (width - 0.5) / 1024 < 0.33
        assert (height + 0.5) * (width + 0.5) / 1024 > 0.02


@pytest.mark.parametrize(("images", "height", "width"), [(1, 32, 32), (31, 17, 33), (3, 227, 227)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_grid_is_torch_s_but_for_rounding(
    images: int, height: int, width: int, dtype: torch.dtype
) -> None:
    """Three products of at most .5 and their sums, by torch with or without fused operations. What
    it gathers, too, at places that are half a side times as far off, though its layout is another.
    """
    generator = torch.Generator().manual_seed(0)
    source = torch.rand(images, 2, 3, dtype=dtype, generator=generator) - 0.5
    batch = torch.rand(images, 2, height, width, dtype=dtype)
    expected = F.affine_grid(source, list(batch.shape), align_corners=False)
    got = augment.affine_grid(source, height, width)
    rounding = 4 * torch.finfo(dtype).eps
    torch.testing.assert_close(got, expected, rtol=0, atol=rounding)
    sampled = (F.grid_sample(batch, grid, align_corners=False) for grid in (got, expected))
    torch.testing.assert_close(*sampled, rtol=0, atol=max(height, width) * rounding)
