"""Stage explain: what a trained network has learned, in pictures and in numbers.

`subject` is the entry that is explained; `sections` is what a module returns for the page. Each
section has a module with `make_section(subject)`; `__main__` lists them in the order of the page.
"""
