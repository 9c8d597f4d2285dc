"""Captioning: what each word rests on."""

from pipeline.explain import filters, word_attribution

SECTIONS = (word_attribution, filters)
SYNTHESIS = ()
