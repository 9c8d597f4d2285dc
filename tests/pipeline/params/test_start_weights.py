"""`needs:` beside `arch:`: an architecture that begins with weights of another entry's network."""

from __future__ import annotations

import pytest

from pipeline.core.errors import ParamsError
from pipeline.params.recipe import built_on

MODELS = {
    "finder": {"arch": "fasterrcnn", "data": {"set": "scenes"}},
    "teller": {"arch": "captioner", "needs": "finder", "data": {"set": "captions"}},
    "lost": {"arch": "captioner", "needs": "nobody"},
    "both": {"arch": "lenet5", "needs": "finder"},
}


def test_a_captioner_keeps_its_own_architecture_and_data() -> None:
    assert built_on("teller", MODELS) == MODELS["teller"]


def test_what_it_needs_must_be_there() -> None:
    with pytest.raises(ParamsError, match=r"models.lost.needs: no other recipe 'nobody'"):
        built_on("lost", MODELS)


def test_other_architectures_take_the_network_that_they_need() -> None:
    with pytest.raises(ParamsError, match=r"models.both: expected one of arch, needs, backbone"):
        built_on("both", MODELS)
