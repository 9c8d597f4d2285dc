"""models/captioner.py: the LSTM against torch's own, teacher forcing against stepping."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from models.captioner import Places

WORDS = torch.tensor([[0, 3, 4, 1], [0, 5, 5, 2], [0, 8, 7, 6]])
OPTIONS = {"in_channels": 1, "size": (16, 24), "words": 9, "longest": 6}


@pytest.fixture
def net():
    torch.manual_seed(0)
    return models.build("captioner", **OPTIONS).eval()


def samples(count=3):
    return torch.randn(count, 1, 16, 24, generator=torch.Generator().manual_seed(1))


def lstm_of(net):
    """Return torch's LSTM of whole sequences with the weights of the network's cell."""
    whole = nn.LSTM(net.lstm.input_size, net.lstm.hidden_size, batch_first=True)
    whole.load_state_dict({f"{name}_l0": weight for name, weight in net.lstm.state_dict().items()})
    return whole


def test_the_state_is_that_of_an_lstm_over_image_and_words(net):
    """Vinyals et al. 2015, eq. 10 to 12: nn.LSTM over the image, then the embedded words."""
    x, words = samples(), WORDS.clone()
    image = net.image(net.reader(net.features(x))).unsqueeze(1)
    states, (last, cell) = lstm_of(net)(torch.cat([image, net.embedding(words)], 1))
    state = net.encode(x)
    torch.testing.assert_close(state[0], states[:, 0], rtol=1e-5, atol=1e-6)
    for word in words.T:
        log_probabilities, *state = net.step(word, *state)
    torch.testing.assert_close(state[0], last[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(state[1], cell[0], rtol=1e-5, atol=1e-6)
    expected = net.head(states[:, 1:]).log_softmax(2)
    torch.testing.assert_close(net(x, words), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(log_probabilities, expected[:, -1], rtol=1e-5, atol=1e-5)


def test_without_words_the_answer_is_that_of_start(net):
    x = samples()
    assert torch.equal(net(x), net(x, torch.zeros(3, 1, dtype=torch.int64)))
    assert net(x).shape == (3, 1, 9) and torch.allclose(net(x).exp().sum(2), torch.ones(3, 1))


def test_rows_are_independent_and_later_words_change_nothing_before(net):
    x, words = samples(), WORDS.clone()
    before = net(x, words)
    words[1, 2], x[2] = 7, 0
    changed = (net(x, words) != before).any(2)
    assert changed.tolist() == [[False] * 4, [False, False, True, True], [True] * 4]


def test_every_parameter_gets_a_gradient_but_those_of_a_frozen_encoder():
    for frozen in (False, True):
        net = models.build("captioner", **OPTIONS, frozen=frozen).train()
        words = torch.arange(8 * 9).view(8, 9) % 9
        net(samples(8), words).square().sum().backward()
        without = {name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()}
        assert without == (
            {f"features.{name}" for name, _ in net.features.named_parameters()} if frozen else set()
        )
        assert net.features.training != frozen and net.image.training


def test_with_the_image_at_every_step_it_is_added_to_each_word():
    """An image that is added to the embedding of each word, by nn.LSTM; the state carries it."""
    torch.manual_seed(0)
    net, x, words = models.build("captioner", **OPTIONS, image="every").eval(), samples(), WORDS
    image = net.image(net.reader(net.features(x))).unsqueeze(1)
    states, _ = lstm_of(net)(torch.cat([image, net.embedding(words) + image], 1))
    expected = net.head(states[:, 1:]).log_softmax(2)
    torch.testing.assert_close(net(x, words), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(net.encode(x)[0][:, 128:], image[:, 0])


def test_a_place_is_where_the_map_is_large():
    """One bright pixel: that it is there, and its column and row from -1 to 1; however bright, the
    same; a thing that is nowhere has no place.
    """
    maps = torch.full((1, 3, 3, 5), -20.0)
    maps[0, 0, 2, 1], maps[0, 1, 2, 1] = 9, 18
    expected = torch.tensor([[1.0, 1, 0, -0.5, -0.5, 0, 1, 1, 0]])
    torch.testing.assert_close(Places()(maps), expected, rtol=0, atol=1e-3)


def test_start_weights_are_those_of_a_detector():
    """Its features; its head on the 5 x 5 cells around a position gives the maps there: four of each
    class, its logit less that of the ground.
    """
    torch.manual_seed(3)
    detector = models.build("fasterrcnn", in_channels=1, size=(16, 24), classes=2, width=8)
    net, x = models.build("captioner", **OPTIONS, maps=8, kinds=2).eval(), samples()
    part = models.start_weights("captioner", detector.state_dict())
    assert {name.split(".")[0] for name in part} == {"features", "reader"}
    net.load_state_dict(net.state_dict() | part)
    maps = detector.eval().features(x)  # (N, 64, 4, 6)
    logits = detector.head(F.pad(maps, (2, 2, 2, 2))[:, :, 2:7, 4:9])[0]  # (N, 1 + 2)
    one, other = (logits[:, [k]] - logits[:, [0]] for k in (1, 2))
    expected = torch.cat([one, other] * 4, 1)
    torch.testing.assert_close(net.reader(net.features(x))[:, :, 1, 2], expected)


def test_too_small_images_are_refused():
    with pytest.raises(
        ValueError, match=r"captioner: expected at least 4 x 4 pixels, got 3 x 24; "
    ):
        models.build("captioner", **OPTIONS | {"size": (3, 24)})


def test_mixed_precision_is_of_the_reader_alone(net):
    """Behind it training computes what it does in float32 from the reader's maps of bf16."""
    net.train().image.norm.eval()
    seen = []
    net.reader.register_forward_hook(lambda *of: seen.append(of[-1]))
    with torch.autocast("cpu", torch.bfloat16):
        got = net(samples(), WORDS)
    assert seen[0].dtype == torch.bfloat16 and got.dtype == torch.float32
    hidden, cell = net.lstm(net.image(seen[0].float()))
    torch.testing.assert_close(got, net.follow(WORDS, hidden, cell), rtol=1e-6, atol=1e-6)
