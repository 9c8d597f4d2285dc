"""Segmentation: what the class of a pixel rests on."""

from pipeline.explain import filters, pixel_attribution

SECTIONS = (pixel_attribution, filters)
SYNTHESIS = ()
