"""Pictures of the report. Each kind of picture is drawn in one way:

Vega-Lite (`vega`, `learning_curves`, the templates of the report) draws charts of few points that a
reader looks up: learning curves, accuracy over size or latency, the roofline. The page draws them
again with tooltips, zoom and names that do not overlap, from the same specification as the PNG.

matplotlib (`style`, `forecasts`, stages explain and study) draws pictures of images, of dense data
(forecasts, residuals, histograms, heat maps) and of many panels. As specifications these would be
larger than as PNG, and there is no single value to look up.
"""
