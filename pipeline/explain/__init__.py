"""How a trained network sees: what stage `explain` draws and measures, a module for each question.

`subject` says what every module is given and gives back: each has `section(subject)`, and `SECTIONS` of `explain` is
the order on the page.
"""
