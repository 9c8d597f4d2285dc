"""The runtime: ONNX files that Convline made, images and CSV series in, predictions out; the `infer` command.

Reading order: `errors`, `contract` (one file is the model), `image` and `series` (raw files to arrays; `csvfile` and
`parquet` are what `series` opens, `reading` which columns a model takes), `session` and `model` (arrays to
predictions), `classify` and `forecast` (inputs to rows), `output`, `plot`, `cli`.
Imports numpy, Pillow, onnxruntime and click, pyarrow where Parquet is asked for; never torch, never onnx.
"""
