"""What the report reads: the plain Markdown of a study."""

from pipeline.report.result_files import split_markdown


def test_markdown_tables_are_read_back() -> None:
    paragraphs, rows = split_markdown(
        "# t\n\nSays so.\n\n| a | b |\n| :-- | --: |\n| x \\| y | 1 |\n"
    )
    assert (paragraphs, rows) == (["Says so."], [["a", "b"], ["x | y", "1"]])
