"""Classification: attribution maps, what each layer has learned, and inputs made for it."""

from pipeline.explain import (
    activation_maximization,
    adversarial,
    attribution,
    embedding,
    feature_inversion,
    filters,
    invariance,
    maximally_activating,
    receptive_field_maps,
    style_transfer,
    training_dynamics,
)

SECTIONS = (
    attribution,
    filters,
    maximally_activating,
    receptive_field_maps,
    invariance,
    training_dynamics,
    embedding,
    adversarial,
)
SYNTHESIS = (activation_maximization, feature_inversion, style_transfer)
