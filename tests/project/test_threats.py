"""docs/threats.md names modules and tests that exist."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "threats.md").read_text(encoding="utf-8")


def test_named_tests_and_modules_exist() -> None:
    tests = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")
    )
    named = set(re.findall(r"`(test_\w+)`", TEXT))
    assert len(named) > 20 and not [name for name in named if f"def {name}(" not in tests]
    assert not [
        path
        for path in re.findall(r"`((?:serve|pipeline)/[\w/.]+)`", TEXT)
        if not (ROOT / path).exists()
    ]
