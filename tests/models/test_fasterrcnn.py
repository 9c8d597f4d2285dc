"""Faster R-CNN: anchors, box coding, suppression and pooling against hand values and torchvision."""

import math

import pytest
import torch
from torchvision import ops
from torchvision.models import get_model

import models
from models import fasterrcnn, layers, summary
from models.boxes import decode, encode, nms_mask, odds

SMALL = {"in_channels": 1, "size": (24, 32), "classes": 3, "width": 8}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return models.build("fasterrcnn", **SMALL).eval()


def images(count):
    return torch.randn(count, 1, 24, 32, generator=torch.Generator().manual_seed(1))


def random_boxes(*shape):
    corners = torch.rand(*shape, 2, 2, generator=torch.Generator().manual_seed(2)) * 24
    return torch.cat([corners.amin(-2), corners.amax(-2)], -1)


def test_anchors():
    """Cells of 4 pixels have their middles at 2 and 6; a side of 10 with ratio 1/2 is 14.14 wide
    and 7.07 high.
    """
    anchors = fasterrcnn.grid_anchors(1, 2, 4, [10, 20])
    long, short = 10 * 2**0.5 / 2, 10 * 0.5**0.5 / 2
    expected = [[2 - long, 2 - short, 2 + long, 2 + short], [-3, -3, 7, 7]]
    expected += [[2 - short, 2 - long, 2 + short, 2 + long]]
    torch.testing.assert_close(anchors[:3], torch.tensor(expected))
    torch.testing.assert_close(anchors[6:], anchors[:6] + torch.tensor([4.0, 0, 4, 0]))
    areas = (anchors[:, 2:] - anchors[:, :2]).prod(1)
    torch.testing.assert_close(areas, torch.tensor([100.0, 100, 100, 400, 400, 400] * 2))


def test_nine_anchors_at_each_cell_cover_the_image(net):
    """6 x 8 cells; anchors follow the order of the 1x1 convolutions' outputs."""
    assert len(net.anchors) == 6 * 8 * 9
    with torch.no_grad():
        net.rpn.objectness.weight.zero_()
        net.rpn.objectness.bias.copy_(torch.arange(9.0))
        objectness, offsets = net.rpn(net.features(images(2)))
    assert objectness.shape == (2, 432) and offsets.shape == (2, 432, 4)
    assert (objectness.unflatten(1, (48, 9)) == torch.arange(9.0)).all()
    middles = (net.anchors[:, :2] + net.anchors[:, 2:]).unflatten(0, (6, 8, 9)) / 2
    torch.testing.assert_close(middles[2, 3], torch.tensor([[14.0, 10.0]]).expand(9, 2))


def test_box_coding():
    """Eq. 2 by hand: the box is one anchor width further right, twice as wide, half as high."""
    anchor, box = torch.tensor([0.0, 0, 10, 20]), torch.tensor([5.0, 5, 25, 15])
    offsets = encode(box, anchor)
    torch.testing.assert_close(offsets, torch.tensor([1, 0, math.log(2), math.log(0.5)]))
    torch.testing.assert_close(decode(offsets, anchor), box)


def test_decoded_sides_are_finite():
    box = decode(torch.full((4,), 1e4), torch.tensor([0.0, 0, 10, 10]))
    assert box.isfinite().all()


def test_clip(net):
    """Images of 24 x 32 pixels."""
    clipped = net.clip(torch.tensor([[-3.0, -1, 40, 30], [2, 3, 4, 5]]))
    assert clipped.tolist() == [[0, 0, 32, 24], [2, 3, 4, 5]]


def test_suppression_by_its_definition():
    """A box stays if no better box that stays overlaps it too much; each row on its own."""
    boxes = random_boxes(3, 20)
    scores = torch.rand(3, 20, generator=torch.Generator().manual_seed(3))
    overlaps = ops.box_iou(boxes, boxes)
    kept = nms_mask(boxes, scores, 0.3, 0.2)
    for row in range(3):
        stays: list[int] = []
        for k in scores[row].argsort(descending=True).tolist():
            if scores[row, k] > 0.2 and all(overlaps[row, k, j] <= 0.3 for j in stays):
                stays.append(k)
        assert kept[row].nonzero().flatten().tolist() == sorted(stays)


@pytest.mark.parametrize(
    ("pooling", "layer"),
    [("align", ops.RoIAlign(5, 1 / 4, 2, aligned=True)), ("pool", ops.RoIPool(5, 1 / 4))],
)
def test_pooled_regions_are_torchvisions(pooling, layer):
    net = models.build("fasterrcnn", **SMALL, pooling=pooling).eval()
    pooled = []
    net.head.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0]))
    maps, boxes = net.features(images(2)), random_boxes(2, 7)
    logits, offsets = net.judge(maps, boxes)
    assert logits.shape == (2, 7, 4) and offsets.shape == (2, 7, 3, 4)
    torch.testing.assert_close(pooled[0], layer(maps, list(boxes)))


@pytest.mark.parametrize("cells", [(6, 8), (5, 7)])  # of 24 x 32 px with padding, and without
def test_training_pools_as_inference_does(net, cells):
    """Features, boxes that touch the border and one without an area; the gradient of the map, too."""
    boxes = torch.cat(
        [random_boxes(2, 7), torch.tensor([[0.0, 0, 32, 24], [9, 9, 9, 9]] * 2).view(2, 2, 4)], 1
    )
    pooled, gradients = [], []
    for mode in (True, False):
        maps = torch.randn(2, 5, *cells, generator=torch.Generator().manual_seed(4))
        maps.requires_grad_()
        pooled.append(net.train(mode).pool(maps, boxes))
        (pooled[-1] * torch.arange(25.0).view(5, 5)).sum().backward()
        gradients.append(maps.grad)
    torch.testing.assert_close(*pooled)
    torch.testing.assert_close(*gradients)


def test_proposals_are_few_and_distinct(net):
    """The best anchor comes first; no two proposals overlap by more than .7; the rest is not valid."""
    objectness = torch.arange(432.0).repeat(2, 1)
    boxes, valid = net.propose(objectness, torch.zeros(2, 432, 4))
    assert boxes.shape == (2, 48, 4) and valid[:, 0].all()
    torch.testing.assert_close(boxes[0, 0], net.clip(net.anchors[-1]))
    overlaps = ops.box_iou(boxes[0, valid[0]], boxes[0, valid[0]]).fill_diagonal_(0)
    assert overlaps.max() <= 0.7
    whole = torch.tensor([0.0, 0, 9, 9]).expand(2, 432, 4)  # every box is the image
    boxes, valid = net.propose(objectness, whole)
    assert boxes[0, 0].tolist() == [0, 0, 32, 24] and valid.sum(1).tolist() == [1, 1]


def judged(boxes, probabilities, valid):
    """Return boxes (1, 48, 4), which of them are valid, and logits (1, 48, 4): those given first."""
    rest = 48 - len(boxes)
    boxes = torch.tensor([boxes + [[0.0, 0, 0, 0]] * rest])
    probabilities = torch.tensor([probabilities + [[1.0, 0, 0, 0]] * rest])
    return boxes, torch.tensor([valid + [False] * rest]), probabilities.log()


def test_finds(net):
    """Of two like boxes of one class the better one stays; of two classes both; .04 is too little."""
    box, other = [2.0, 2, 12, 12], [20.0, 2, 30, 12]
    probabilities = [[0.1, 0.9, 0, 0], [0.2, 0.8, 0, 0], [0.3, 0, 0.04, 0.66], [0.0, 0.0, 0.4, 0.6]]
    given = judged([box, box, other, other], probabilities, [True, True, True, False])
    outputs = net.select(*given, torch.zeros(1, 48, 3, 4))
    found, labels, scores, count = (part[0] for part in outputs)
    assert count == 2 and labels[:2].tolist() == [0, 2]
    torch.testing.assert_close(scores[:2], torch.tensor([0.9, 0.66]))
    torch.testing.assert_close(found[:2], torch.tensor([box, other]))
    assert not found[2:].any() and not labels[2:].any() and not scores[2:].any()
    assert len(scores) == net.most == 32


def test_odds_by_hand():
    """.8 to .2 is 4; a logit of 12 against three of 0 is e^12 / 3, where 1 - p has three digits."""
    found = odds(torch.tensor([[0.8, 0.1, 0.1], [0.0, 0.25, 0.75]]))
    torch.testing.assert_close(found, torch.tensor([[4, 1 / 9, 1 / 9], [0, 1 / 3, 3]]))
    assert odds(torch.tensor([12.0, 0, 0, 0]).softmax(0))[0] == pytest.approx(
        math.exp(12) / 3, rel=1e-5
    )


def test_boxes_of_nearly_equal_scores_do_not_tie(net):
    """Logits of 16 and 16.001 have one probability in float32; the better of the boxes stays."""
    worse, better = [2.0, 2, 12, 12], [2.0, 2, 12, 11.5]
    logits = torch.tensor([[[0, 16.0, 0, 0], [0, 16.001, 0, 0], *[[16.0, 0, 0, 0]] * 46]])
    assert logits.softmax(2)[0, 0, 1] == logits.softmax(2)[0, 1, 1]
    boxes, valid, _ = judged([worse, better], [[1.0, 0, 0, 0]] * 2, [True, True])
    found, *_, count = net.select(boxes, valid, logits, torch.zeros(1, 48, 3, 4))
    assert count == 1
    torch.testing.assert_close(found[0, 0], torch.tensor(better))


def test_each_class_has_its_own_offsets(net):
    """The head's offsets are in units of its deviations, .1 of a box's width for x."""
    offsets = torch.zeros(1, 48, 3, 4)
    offsets[0, 0, 1, 0] = 5
    given = judged([[2.0, 2, 12, 12]], [[0.0, 0.5, 0.4, 0.1]], [True])
    found, labels, *_ = net.select(*given, offsets)
    assert labels[0, :3].tolist() == [0, 1, 2]
    torch.testing.assert_close(found[0, :3, 0], torch.tensor([2.0, 7, 2]))


@torch.no_grad()
def test_rows_are_independent(net):
    x = images(3)
    other = x.clone()
    other[1] += 1
    for first, second in zip(net(x), net(other), strict=True):
        assert torch.equal(first[[0, 2]], second[[0, 2]])


@pytest.mark.parametrize("backbone", ["small", "vgg", "resnet", "zoo"])
def test_backbones(backbone):
    """Oblong colour images; the map has a cell for each stride, and only hidden layers are He's."""
    options = SMALL | {"in_channels": 3, "size": (64, 96), "backbone": backbone, "width": 2000}
    options |= {"name": "mobilenet_v2"} if backbone == "zoo" else {}
    net = summary.on_meta("fasterrcnn", options)
    cells = 64 * 96 // net.stride**2
    assert net.features(torch.zeros(2, 3, 64, 96, device="meta")).shape[2:].numel() == cells
    assert [tuple(part.shape) for part in net(torch.zeros(2, 3, 64, 96, device="meta"))] == [
        *((2, 32, 4), (2, 32), (2, 32), (2,))
    ]


@pytest.mark.parametrize(
    ("name", "stride", "expected"),
    [
        ("vgg16", 16, (512, 4, 6)),  # up to conv5_3, as in the paper
        ("resnet18", 16, (256, 4, 6)),  # up to conv4_x
        ("mobilenet_v2", 8, (32, 8, 12)),
        (
            "squeezenet1_1",
            8,
            (256, 7, 11),
        ),  # its pools round up, its first convolution does not pad
        ("densenet121", 4, (256, 16, 24)),
        ("shufflenet_v2_x0_5", 32, (1024, 2, 3)),  # its next layer is dense
    ],
)
def test_networks_of_torchvision_are_cut_at_a_stride(name, stride, expected):
    """Images of 64 x 96; the same maps as torchvision's layers give."""
    with torch.device("meta"):
        features = fasterrcnn.zoo_features(3, name, stride)
    assert layers.feature_shape(features, 3, (64, 96)) == expected
    assert 64 / expected[1] < 1.5 * stride


def test_published_weights_of_the_features():
    """torchvision's weights of these layers fit under their own names, and give the same map."""
    torch.manual_seed(0)
    options = SMALL | {"in_channels": 3, "size": (32, 32), "backbone": "zoo", "stride": 8}
    net, published = models.build("fasterrcnn", **options).eval(), get_model("squeezenet1_1").eval()
    given = fasterrcnn.start_weights(published.state_dict())
    net.features.load_state_dict(
        {name: given[f"features.{name}"] for name in net.features.state_dict()}
    )
    x = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(net.features(x), published.features[: len(net.features)](x))


def test_initial_weights():
    """Hidden layers keep the variance, sqrt(2 / fan-in); those that score or move boxes start small."""
    torch.manual_seed(0)
    net = models.build("fasterrcnn", **SMALL | {"width": 500})
    for layer, deviation in [
        (net.rpn.hidden[0], (2 / (64 * 9)) ** 0.5),
        (net.head.hidden[1], (2 / (64 * 25)) ** 0.5),
        *((net.rpn.offsets, 0.01), (net.head.logits, 0.01), (net.head.offsets, 0.001)),
    ]:
        assert layer.weight.std().item() == pytest.approx(deviation, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": (3, 32)}, "expected at least 4 x 4 pixels, got 3 x 32"),
        ({"backbone": "lenet5"}, "expected backbone small, vgg, resnet, zoo, got 'lenet5'"),
        ({"backbone": "zoo"}, "expected 3 channels for backbone zoo, got 1"),
        ({"backbone": "zoo", "in_channels": 3}, "expected at least 32 x 32 pixels, got 24 x 32"),
        (
            {"backbone": "zoo", "in_channels": 3, "size": (32, 32), "name": "swin_t"},
            "expected a chain of layers, got swin_t",
        ),
        (
            {"backbone": "zoo", "in_channels": 3, "size": (64, 64), "stride": 32},
            "expected a network with a map of stride 32, got squeezenet1_1, whose last .* has 17",
        ),
        ({"stride": 8}, "expected backbone zoo for them, got name squeezenet1_1, stride 8 .*"),
        ({"pooling": "mean"}, "expected pooling align, pool, got 'mean'"),
    ],
)
def test_refused_options(options, message):
    with pytest.raises(ValueError, match=rf"^fasterrcnn: {message}; "):
        models.build("fasterrcnn", **SMALL | options)
