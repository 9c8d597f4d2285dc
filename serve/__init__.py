"""The runtime: ONNX files that Convline made, images and CSV series in, predictions out; the `infer` command.

Reading order: `errors`, `contract` (one file is the model), `image` and `series` (raw files to arrays), `session`
and `model` (arrays to predictions), `classify` and `forecast` (inputs to rows), `output`, `cli`. What judges a model
where it is used: `doctor`, `bench`, `evaluate`.
Imports numpy, Pillow, onnxruntime and click, pyarrow where Parquet is asked for; never torch, never onnx.
"""
