"""What has to be installed to serve, against what training has: bytes of every file in each environment.

    python benchmarks/size.py    # a minute; uv takes the packages from its cache or the registry
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

from pipeline import wheel


def installed(site: Path) -> Counter[str]:
    """Return the megabytes of each top-level package, `*.libs` counted with their package."""
    sizes: Counter[str] = Counter()
    for path in site.rglob("*"):
        if path.is_file():
            sizes[path.relative_to(site).parts[0].split(".")[0].lower()] += path.stat().st_size / 1e6
    return sizes


def main() -> None:
    """Print the table."""
    sites, uv = {"training": Path(sysconfig.get_path("purelib"))}, [sys.executable, "-m", "uv"]
    with tempfile.TemporaryDirectory() as name:
        built = wheel.build().resolve()
        for extras in ("cpu", "cpu,parquet"):
            folder = Path(name, extras)
            subprocess.run([*uv, "venv", "-q", folder], check=True)
            subprocess.run([*uv, "pip", "install", "-q", "-p", folder / "bin/python", f"{built}[{extras}]"], check=True)
            sites[f"wheel[{extras}]"] = next(folder.glob("lib/python*/site-packages"))
        print("| environment | MB | largest |\n| --- | ---: | --- |")
        for what, site in sites.items():
            largest = ", ".join(f"{package} {size:,.0f}" for package, size in installed(site).most_common(4))
            print(f"| {what} | {installed(site).total():,.0f} | {largest} |")


if __name__ == "__main__":
    main()
