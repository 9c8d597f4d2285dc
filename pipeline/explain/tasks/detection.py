"""Detection: what a find rests on."""

from pipeline.explain import box_attribution, filters

SECTIONS = (box_attribution, filters)
SYNTHESIS = ()
