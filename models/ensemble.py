"""Ensemble: the mean forecast of TCNs unlike in look-back or normalisation, linear maps, or both.

Each member has weights and a loss of its own, as in Lakshminarayanan et al. 2017, "Simple and
scalable predictive uncertainty estimation using deep ensembles", arXiv:1612.01474, section 2.4,
whose members differ by their random start. Here they differ by what they assume of a series that
leaves the range of its training: `instance` that its level and spread move, `last` that its level
moves, `none` that neither does. The validation split may not show which assumption holds; the mean
needs no choice. The defaults are these three, which all see the whole context. Each quantile level
is averaged separately: Lichtendahl, Grushka-Cockayne, Winkler 2013, "Is it better to average
probabilities or quantiles?", section 3.

    member    layers                                        output for a window (504, 7), S = 96
    each      a TCN on its newest `look_backs` rows         96 x 7
    maps      an LTSF-Linear each, on its own look-back     96 x 7
              the mean of those that are picked             96 x 7

All members are picked, or, after training, those by which the mean's squared error on validation
rows is least: `best` is one, `greedy` adds the member that helps most ten times, one as often as it
helps (Caruana, Niculescu-Mizil, Crew, Ksikes 2004, "Ensemble selection from libraries of models",
section 2). The others are not in the exported file. Where the validation rows hold fewer than ten
windows ahead that do not overlap, they cannot tell: the maps are picked, in equal shares, since
least squares over all windows varies less than a trained net does; without maps, all members.

Of two maps that differ in their bias alone, one is left out beforehand: that without, if the gain
of the other on validation rows is above the standard error of this paired difference, after the
rule of one standard error (Breiman, Friedman, Olshen, Stone 1984, "Classification and regression
trees", section 3.4.3). The error is over stretches of one horizon of window starts; the targets of
neighbours overlap, so that it is about a fifth too small. Of two or three stretches it says little
(a bias that gains nothing stays in 25 or 21 % of cases): it is a leaning towards the simpler map. A
bias is the drift of the training rows, which need not go on.

In training the network returns each member's forecast, for a loss of its own: `aux_weight: 1` gives
all members the same weight, and the training loss that is printed is the first member's. Each
member keeps the weights of its own best epoch. A linear member may have a closed form
(`train.start`), and is not trained then.

Expected: on ETTh1, results/etth1.md; on sunspots, three TCNs and a map, mean squared error 1,013
to 1,122 and .78 to .80 of the test rows inside the 80 % interval over three seeds; `instance` alone
1,020 to 1,080 and .86 to .89 over three; without the map, and with 33 years in place of 22, 1,324
and .78 at one seed.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from models import layers, ltsflinear, options, tcn
from models.options import Count, Fraction, Positive

PAPER = "after Lakshminarayanan et al. 2017"

REFERENCE = {
    "six TCNs": {
        "options": {
            "series": 7,
            "targets": 7,
            "calendar": 0,
            "horizon": 96,
            "context": 504,
            "quantiles": 1,
            "look_backs": [336, 504],
            "channels": 8,
            "patch": 24,
            "stride": 24,
        },
        "input": (504, 7),
        "trainable": 12_096,
        "fixed": 0,
        "source": "3 (200 + 3 * 272 + 9 * 96) + 3 (200 + 4 * 272 + 9 * 96)",
    },
}


KINDS = ("linear", "nlinear", "rlinear", "dlinear")  # of linear maps: those of ltsflinear
# Options of a linear map, besides its look_back.
MAP = {"kind": "nlinear", "rank": 0, "bias": True}
ROUNDS = 10  # of greedy selection
LEAST = 10  # windows that do not overlap, of which a mean error can tell members apart


def check_options(
    context: int,
    look_backs: Sequence[int] | None,
    normalise: Sequence[str],
    maps: Sequence[Mapping[str, Any]],
    kernel_size: int,
    patch: int,
    stride: int,
) -> None:
    """Raise ValueError without members, or for members that do not fit the context."""
    rows = [context] if look_backs is None else [*look_backs]
    for given in maps:
        whole: dict[str, Any] = {**MAP, "look_back": 1, **given}
        types = {type(whole["rank"]), type(whole["look_back"])}
        wrong = whole["kind"] not in KINDS or types != {int} or whole["rank"] < 0
        if unknown := sorted(given.keys() - {"look_back", *MAP}):
            needed = f"maps of {', '.join(MAP)}, look_back"
            raise ValueError(f"ensemble: expected {needed}, got {', '.join(unknown)}; correct it")
        if wrong or type(whole["bias"]) is not bool:
            kinds = ", ".join(KINDS)
            needed = f"maps of kind {kinds}, rank from 0, look_back from 1, bias true or false"
            raise ValueError(f"ensemble: expected {needed}, got {dict(given)}; correct it")
    seen = [*rows, *(given.get("look_back", context) for given in maps)]
    if not rows or not (normalise or maps) or min(seen) < 1 or max(seen) > context:
        got = f"look_backs {seen}, normalise {list(normalise)}"
        needed = f"one and more of each, look-backs up to context {context}"
        raise ValueError(f"ensemble: expected {needed}, got {got}; raise context or lower them")
    options.require_patch("ensemble", kernel_size, patch, stride)


@runtime_checkable
class Choosing(Protocol):
    """A network of `members`, each with one of `labels`, of which validation rows may pick some."""

    @property
    def picks(self) -> bool:
        """Return whether members are picked; only then the network has `counts`."""

    def pick(self, products: Tensor) -> None:
        """Set the counts, from the mean products of the members' errors (B, K, K) in each of B
        stretches of the validation windows: as many as there are windows ahead that do not overlap.
        """


class Map(nn.Module):
    """Return forecasts of a linear map, which sees the targets' history alone."""

    def __init__(self, net: ltsflinear.LTSFLinear, ahead: int, targets: int) -> None:
        """ahead: rows of the input behind the history."""
        super().__init__()
        self.net, self.ahead, self.targets = net, ahead, targets

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x[:, : x.shape[1] - self.ahead, : self.targets])
        return y


class Ensemble(nn.Module):
    """Return forecasts (N, S * Q, targets) for standardised series (N, T, D).

    In training a tuple, one for each member."""

    counts: Tensor

    def __init__(
        self,
        *,
        series: int,
        targets: int,
        calendar: int,
        horizon: int,
        context: int,
        quantiles: int,
        look_backs: Sequence[Positive] | None = None,
        normalise: Sequence[Literal["instance", "last", "none"]] = ("instance", "last", "none"),
        maps: Sequence[dict[str, Any]] = (),
        choose: Literal["all", "best", "greedy"] = "all",
        channels: Positive = 32,
        kernel_size: Positive = 3,
        blocks: Count = 0,
        patch: Positive = 16,
        stride: Positive = 8,
        dropout: Fraction = 0.2,
        independent: bool = True,
        linear: bool = False,
    ) -> None:
        """`look_backs`: rows that members see, at most `context`; None: all see `context` rows;
        `normalise`: as the TCN's; each pair is a member; `maps`: further members, each the `kind`,
        `rank` and `bias` of an ltsflinear and its `look_back`; `choose`: the members that are
        picked.
        """
        super().__init__()
        look_backs = [context] if look_backs is None else look_backs
        check_options(context, look_backs, normalise, maps, kernel_size, patch, stride)
        shared: dict[str, Any] = {
            "series": series,
            "targets": targets,
            "calendar": calendar,
            "horizon": horizon,
            "quantiles": quantiles,
            "channels": channels,
            "kernel_size": kernel_size,
            "blocks": blocks,
            "patch": patch,
            "stride": stride,
            "dropout": dropout,
            "independent": independent,
            "linear": linear,
        }
        pairs = list(itertools.product(look_backs, normalise))
        ahead = horizon if calendar else 0
        self.rows = context + ahead
        tcns = [tcn.TCN(context=rows, normalise=kind, **shared) for rows, kind in pairs]
        self.labels = [f"tcn {rows} {kind}" for rows, kind in pairs]
        linear_maps = []
        wholes = [{**MAP, "look_back": context, **given} for given in maps]
        for own in wholes:
            text = "map {look_back} {kind}, rank {rank}" + ", no bias" * (not own["bias"])
            self.labels.append(text.format(**own))
            kept = {key: own[key] for key in MAP} | {"context": own["look_back"]}
            net = ltsflinear.LTSFLinear(
                series=targets, horizon=horizon, quantiles=quantiles, **kept
            )
            linear_maps.append(Map(net, ahead, targets))
        # Numbers of the members with and without bias that are otherwise the same.
        self.twins = [
            (len(tcns) + k, len(tcns) + wholes.index(own | {"bias": False}))
            for k, own in enumerate(wholes)
            if own["bias"] and own | {"bias": False} in wholes
        ]
        self.members = nn.ModuleList([*tcns, *linear_maps])
        fields = [member.receptive_field for member in tcns]
        self.receptive_field = max([*fields, *(member.net.context for member in linear_maps)])
        self.convolution_field = max((member.convolution_field for member in tcns), default=None)
        self.choose, self.picked = choose, list(range(len(self.members)))
        if choose != "all":
            self.register_buffer("counts", torch.ones(len(self.members), dtype=torch.int64))
            self.register_load_state_dict_post_hook(take_counts)  # type: ignore[no-untyped-call]

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        layers.require_steps("ensemble", x, self.rows)
        wanted = range(len(self.members)) if self.training else sorted(set(self.picked))
        forecasts = {k: self.members[k](x) for k in wanted}
        if self.training:
            return tuple(forecasts.values())
        return torch.stack([forecasts[k] for k in self.picked]).mean(0)

    @property
    def picks(self) -> bool:
        """Return whether members are picked after training, as `Choosing` has it."""
        return self.choose != "all"

    def training_only(self) -> list[nn.Module]:
        """Return the members that are not picked, as `summary.Trimmed` has it."""
        return [member for k, member in enumerate(self.members) if k not in self.picked]

    def pick(self, products: Tensor) -> None:
        """Pick members as `choose` says, from the products of their errors; see `Choosing`."""
        left = torch.ones(len(self.members), dtype=torch.bool)
        products = products.cpu()
        for biased, plain in self.twins:
            gains = products[:, plain, plain] - products[:, biased, biased]
            tells = len(gains) > 1 and gains.mean() > gains.std() / len(gains) ** 0.5
            left[plain if tells else biased] = False
        if len(products) < LEAST:
            are_maps = torch.tensor([isinstance(member, Map) for member in self.members])
            counts = (are_maps if are_maps.any() else ~are_maps) & left
        else:
            counts = torch.zeros(len(left), dtype=torch.int64)
            of = products.mean(0)[left][:, left]
            counts[left] = pick(of, 1 if self.choose == "best" else ROUNDS)
        self.counts.copy_(counts)
        take_counts(self, None)

    def solve(self, sums: Tensor, ridge: float, levels: Sequence[float]) -> list[nn.Parameter]:
        """Give all maps their closed form; see `closed_form.Solvable`."""
        maps = [member.net for member in self.members if isinstance(member, Map)]
        return [weight for net in maps for weight in net.solve(sums, ridge, levels)]


def pick(products: Tensor, rounds: int) -> Tensor:
    """Return how often each of K members is picked, int64 (K,): greedily, up to so many in all.

    products (K, K): the mean of error i times error j. The mean of picked forecasts has as its
    squared error the mean of their products.
    """
    picked: list[int] = []
    found: list[tuple[float, list[int]]] = []
    for _ in range(rounds):
        tried = [[*picked, k] for k in range(len(products))]
        errors = [float(products[some][:, some].mean()) for some in tried]
        picked = tried[errors.index(min(errors))]
        found.append((min(errors), picked))
    best = min(found)[1]
    return torch.bincount(torch.tensor(best), minlength=len(products))


def take_counts(net: nn.Module, _: Any) -> None:
    """Note the members that are picked as numbers, which a graph can be traced with."""
    assert isinstance(net, Ensemble)
    net.picked = torch.arange(len(net.members)).repeat_interleave(net.counts.cpu()).tolist()


Model = Ensemble
