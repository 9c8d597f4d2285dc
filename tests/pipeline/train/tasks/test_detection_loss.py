"""Detection: matching, sampling and losses by their definition, and a training that finds a box."""

import math
from types import SimpleNamespace

import pytest
import torch
from torchvision.ops import box_iou

import models
from pipeline.network.tasks.detection import Detector
from pipeline.train.tasks import detection

NONE = [0.0, 0, 0, 0, -1]


def detector(seed=0):
    torch.manual_seed(seed)
    net = models.build(
        "fasterrcnn", in_channels=1, size=(32, 32), classes=2, width=16, scales=[8, 12, 16]
    )
    return Detector(net, torch.zeros(1, 1, 1), torch.full((1, 1, 1), 1 / 128))


def squares():
    """Return images uint8 (4, 1, 32, 32) of a bright square or bar each, and their boxes."""
    x, y = torch.full((4, 1, 32, 32), 40, dtype=torch.uint8), torch.tensor([[NONE, NONE]] * 4)
    boxes = [(4, 6, 16, 18, 0), (14, 12, 26, 24, 0), (3, 20, 19, 28, 1), (10, 2, 26, 10, 1)]
    for k, (left, top, right, bottom, label) in enumerate(boxes):
        x[k, :, top:bottom, left:right] = 220
        y[k, 0] = torch.tensor([left, top, right, bottom, label])
    return x, y


def test_overlap():
    """By hand: a shared area of 25 of 175; an image without a second box has -1 there."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]]])
    overlaps = detection.overlap(boxes, torch.tensor([[[5.0, 5, 15, 15, 1], NONE]]))
    torch.testing.assert_close(overlaps, torch.tensor([[[25 / 175, -1], [0, -1]]]))


def test_overlap_is_torchvisions():
    """Bit for bit, of images that share their anchors."""
    torch.manual_seed(0)
    anchors, boxes = (torch.rand(*shape, 4) * 20 for shape in ((1, 30), (3, 5)))
    anchors[..., 2:] += anchors[..., :2]
    boxes[..., 2:] += boxes[..., :2]
    overlaps = detection.overlap(anchors.expand(3, -1, 4), torch.cat([boxes, boxes[..., :1]], 2))
    assert (overlaps > 0).any() and (overlaps == 0).any()
    assert torch.equal(overlaps, box_iou(anchors, boxes))


def test_labels_of_anchors():
    """Section 3.1: (i) the best of each true box, ties too; (ii) above .7; negative below .3."""
    overlaps = torch.tensor(
        [[[0.8, 0], [0.71, 0.1], [0.6, 0.2], [0.2, 0.4], [0.0, 0.4], [0.1, 0.29], [0.3, 0.1]]]
    )
    positive, negative = detection.label_anchors(overlaps)
    assert positive[0].tolist() == [True, True, False, True, True, False, False]
    assert negative[0].tolist() == [False, False, False, False, False, True, False]


def test_an_image_without_boxes_has_negatives_alone():
    positive, negative = detection.label_anchors(torch.full((1, 5, 2), -1.0))
    assert not positive.any() and negative.all()


@pytest.mark.parametrize(("positives", "expected"), [(100, (4, 4)), (3, (3, 5)), (0, (0, 8))])
def test_samples(positives, expected):
    """Of 8 at most half are positive; negatives fill up; members are drawn, not the first ones."""
    positive = torch.arange(200).expand(50, -1) < positives
    negative = torch.arange(200).expand(50, -1) >= 120
    random = torch.Generator().manual_seed(0)
    drawn = detection.draw(positive, negative, 8, 0.5, random)
    assert tuple(int(part[0].sum()) for part in drawn) == expected
    assert not (drawn[0] & ~positive).any() and not (drawn[1] & ~negative).any()
    assert len({tuple(row.nonzero().flatten().tolist()) for row in drawn[1]}) == 50


def test_a_sample_is_larger_than_what_there_is():
    """Of 8 at most a quarter is positive, also where five are there in all."""
    positive = torch.tensor([[True, True, True, False, False]])
    drawn = detection.draw(positive, ~positive, 8, 0.25, torch.Generator().manual_seed(0))
    assert [int(part.sum()) for part in drawn] == [2, 2]


def test_sampled_regions():
    """True boxes are among them; a region is of the class it overlaps by half, else background."""
    truth = torch.tensor([[[0.0, 0, 10, 10, 1], [20, 20, 30, 30, 0], NONE]])
    proposals = torch.tensor([[[0.0, 0, 10, 8], [0, 0, 10, 4], [21, 21, 30, 30], [9, 9, 9, 9]]])
    valid = torch.tensor([[True, True, True, False]])
    boxes, labels, goals = detection.sample_regions(proposals, valid, truth, 16, None)
    rows = zip(boxes[0].int().tolist(), labels[0].tolist(), strict=True)
    expected = [((0, 0, 10, 8), 2), ((0, 0, 10, 4), 0), ((21, 21, 30, 30), 1), ((9, 9, 9, 9), -1)]
    expected += [((0, 0, 10, 10), 2), ((20, 20, 30, 30), 1), ((0, 0, 0, 0), -1)]
    assert {tuple(box): label for box, label in rows} == dict(expected)
    positive = labels > 0
    overlaps = box_iou(boxes[positive], goals[positive]).diagonal()
    assert (overlaps >= 0.5).all()


def test_losses_of_anchors():
    """Logits of 0 cost log 2 each; an offset that is wrong by 3 costs 3 - 1/2, one by .5 costs .125;
    both terms are over the four samples.
    """
    anchors = torch.tensor([[0.0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]])
    y = torch.tensor([[[0.0, 0, 10, 10, 0], NONE]])
    offsets = torch.zeros(1, 4, 4)
    offsets[0, 0] = torch.tensor([3.0, 0, 0, 0.5])
    offsets[0, 1] = 100  # of an anchor without an object
    losses = detection.anchor_losses(torch.zeros(1, 4), offsets, anchors, y, 4)
    torch.testing.assert_close(torch.stack(losses), torch.tensor([math.log(2), (2.5 + 0.125) / 4]))


def test_losses_of_regions():
    """Background and a region that is not sampled move no box, nor do other classes' offsets."""
    labels = torch.tensor([[2, 0, -1]])
    logits = torch.tensor([[[0.0, 0, math.log(2)], [math.log(2), 0, 0], [9, 9, 9]]])
    offsets, goals = torch.full((1, 3, 2, 4), 7.0), torch.zeros(1, 3, 4)
    offsets[0, 0, 1] = torch.tensor([0.0, 2, 0, 0])
    losses = detection.region_losses(logits, offsets, labels, goals)
    torch.testing.assert_close(torch.stack(losses), torch.tensor([math.log(2), 1.5 / 2]))


def test_evaluation_repeats_and_training_draws():
    x, y = squares()
    net = detector().eval()
    with torch.no_grad():
        first, second = (detection.forward(net, x, y, None) for _ in range(2))
    assert torch.equal(torch.stack(first), torch.stack(second))
    assert detection.sum_correct(first, y) == 0
    net.train()
    first, second = (detection.forward(net, x, y, None) for _ in range(2))
    assert first.objectness != second.objectness


def test_an_image_without_boxes_trains():
    x, _ = squares()
    losses = detection.forward(detector().train(), x, torch.tensor([[NONE, NONE]] * 4), None)
    assert torch.stack(losses).isfinite().all()
    assert losses.anchor_boxes == 0 and losses.region_boxes == 0


def test_training_finds_the_boxes():
    """Every parameter gets a gradient, the loss falls, and the file's outputs are the true boxes."""
    (x, y), net = squares(), detector().train()
    train = SimpleNamespace()
    optimizer, losses = torch.optim.Adam(net.parameters(), 3e-3), []
    torch.manual_seed(1)
    for step in range(60):
        optimizer.zero_grad()
        outputs = detection.forward(net, x, y, train)
        loss = detection.objective(outputs, y, train)
        loss.backward()
        if not step:
            assert all(p.grad is not None and p.grad.any() for p in net.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5
    with torch.no_grad():
        boxes, labels, scores, _ = net.eval()(x.permute(0, 2, 3, 1))
    assert labels[:, 0].tolist() == [0, 0, 1, 1] and (scores[:, 0] > 0.3).all()
    assert (box_iou(boxes[:, 0], y[:, 0, :4]).diagonal() > 0.5).all()


def test_statistics_come_from_the_features():
    x, _ = squares()
    net = detector().train()
    detection.statistics_forward(net)(x)
    assert int(net.net.features[1].num_batches_tracked) == 1
