"""What has to be installed to serve, against what training has: bytes of every file in each environment.

    python benchmarks/size.py    # a minute; uv takes the packages from its cache or the registry
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # runs from a bare checkout, uninstalled

from pipeline import wheel


def installed(site: Path) -> dict[str, int]:
    """Return the bytes of each top-level package, `*.libs` counted with their package; links are not followed."""
    sizes: dict[str, int] = {}
    for folder, _, files in os.walk(site):
        for file in files:
            path = Path(folder, file)
            name = path.relative_to(site).parts[0].split(".")[0].lower()
            sizes[name] = sizes.get(name, 0) + path.lstat().st_size
    return sizes


def fresh(folder: Path, built: Path, extras: str) -> Path:
    """Return the site-packages of a new environment that holds the wheel with its extras."""
    uv, python = [sys.executable, "-m", "uv"], folder / "bin" / "python"
    subprocess.run([*uv, "venv", "--quiet", folder], check=True)
    subprocess.run([*uv, "pip", "install", "--quiet", "--python", python, f"{built}[{extras}]"], check=True)
    return next(folder.glob("lib/python*/site-packages"))


def main() -> None:
    """Print the table."""
    print("| environment | MB | largest |\n| --- | ---: | --- |")
    with tempfile.TemporaryDirectory() as name:
        built = wheel.build()
        sites = {f"wheel[{extras}]": fresh(Path(name, extras), built, extras) for extras in ("cpu", "cpu,parquet")}
        sites["training"] = Path(sysconfig.get_path("purelib"))
        for what, site in sites.items():
            sizes = installed(site)
            largest = sorted(sizes, key=lambda key: -sizes[key])[:4]
            parts = ", ".join(f"{key} {sizes[key] / 1e6:,.0f}" for key in largest)
            print(f"| {what} | {sum(sizes.values()) / 1e6:,.0f} | {parts} |")


if __name__ == "__main__":
    main()
