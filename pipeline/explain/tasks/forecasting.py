"""Forecasting: which steps of the history a forecast depends on."""

from pipeline.explain import receptive_field_maps, temporal_saliency

SECTIONS = (temporal_saliency, receptive_field_maps)
SYNTHESIS = ()
