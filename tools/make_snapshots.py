"""What laptops have: well-known stacks, resolved by uv for macOS and Windows as the index was on one day.

Each becomes a file in tests/data/snapshots whose head says what it was made for, so that ``likewise plan --from`` needs
nothing else. Run it with the names of the stacks to be made anew, or with none for all.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from uv import find_uv_bin

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "tests" / "data" / "snapshots"
NEWEST = "2026-02-01"
"""Some time before the plans are made: in between, versions were yanked, and newer ones came out."""

ARM_MAC, INTEL_MAC, WINDOWS = "aarch64-apple-darwin", "x86_64-apple-darwin", "x86_64-pc-windows-msvc"


class Stack(NamedTuple):
    """What somebody has installed, and on what."""

    name: str
    platform: str
    python: str
    wanted: tuple[str, ...]
    newest: str = NEWEST


DASK = ("dask", "distributed")
W160 = tuple(line.partition("==")[0] for line in (ROOT / "bench" / "w160.txt").read_text("utf-8").split())
STACKS = (
    Stack("pydata", ARM_MAC, "3.12.7", ("dask[complete]", "distributed", "numpy", "pandas", "scipy", "matplotlib")),
    Stack("pydata", WINDOWS, "3.11.9", ("dask[complete]", "distributed", "numpy", "pandas", "scipy", "matplotlib")),
    Stack("learning", ARM_MAC, "3.11.7", (*DASK, "scikit-learn", "xgboost", "lightgbm", "statsmodels", "dask-ml")),
    Stack("torch", ARM_MAC, "3.12.7", (*DASK, "torch", "torchvision", "transformers", "datasets", "accelerate")),
    Stack("torch", WINDOWS, "3.12.7", (*DASK, "torch", "torchvision", "transformers", "datasets", "accelerate")),
    Stack("tensorflow", ARM_MAC, "3.11.7", (*DASK, "tensorflow", "keras", "tensorboard")),
    Stack("geo", ARM_MAC, "3.12.7", (*DASK, "geopandas", "rasterio", "shapely", "pyproj", "rioxarray", "folium")),
    Stack("geo", WINDOWS, "3.12.7", (*DASK, "geopandas", "rasterio", "shapely", "pyproj", "rioxarray", "folium")),
    Stack("climate", ARM_MAC, "3.13.1", (*DASK, "xarray", "zarr", "h5netcdf", "cftime", "s3fs", "gcsfs")),
    Stack("notebook", ARM_MAC, "3.12.7", (*DASK, "jupyterlab", "ipywidgets", "bokeh", "plotly", "seaborn")),
    Stack("notebook", WINDOWS, "3.10.11", (*DASK, "jupyterlab", "ipywidgets", "bokeh", "plotly", "seaborn", "pywin32")),
    Stack("notebook", INTEL_MAC, "3.11.7", (*DASK, "notebook", "ipykernel", "matplotlib", "pyobjc-core", "appnope")),
    Stack("images", WINDOWS, "3.11.9", (*DASK, "scikit-image", "opencv-python", "pillow", "imageio[ffmpeg]")),
    Stack("lakehouse", ARM_MAC, "3.12.7", (*DASK, "polars", "duckdb", "pyarrow", "deltalake", "psycopg2-binary")),
    Stack("language", WINDOWS, "3.12.7", (*DASK, "spacy", "gensim", "nltk", "sentence-transformers")),
    Stack("web", INTEL_MAC, "3.12.7", (*DASK, "fastapi", "uvicorn[standard]", "celery", "redis", "django", "uvloop")),
    Stack("w160", ARM_MAC, "3.11.7", W160, "2026-11-20"),
)  # fmt: skip


def file_of(stack: Stack) -> Path:
    """``pydata-macos-arm64.txt``."""
    where = {ARM_MAC: "macos-arm64", INTEL_MAC: "macos-x86_64", WINDOWS: "windows"}[stack.platform]
    return FOLDER / f"{stack.name}-{where}.txt"


def make(stack: Stack) -> None:
    """Resolve one stack and write its file.

    Raises
    ------
    subprocess.CalledProcessError
        It has no solution.
    """
    how = ["--python-platform", stack.platform, "--python-version", stack.python, "--exclude-newer", stack.newest]
    command = [find_uv_bin(), "pip", "compile", "--no-config", "--quiet", "--no-annotate", "--only-binary", ":all:"]
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "wanted.in"
        wanted.write_text("".join(f"{name}\n" for name in stack.wanted), "utf-8")
        done = subprocess.run(
            [*command, "--no-header", *how, str(wanted)], stdout=subprocess.PIPE, text=True, check=True
        )
    head = f"# {' '.join(stack.wanted) if len(stack.wanted) < 20 else stack.name}\n# uv pip compile {' '.join(how)}\n"
    file_of(stack).write_text(head + done.stdout, "utf-8")


def main() -> int:
    """Make the stacks that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="stacks; default: all")
    names = parser.parse_args().names
    FOLDER.mkdir(parents=True, exist_ok=True)
    failed = []
    for stack in STACKS:
        if not names or stack.name in names:
            try:
                make(stack)
            except subprocess.CalledProcessError:
                failed.append(file_of(stack).name)
    if failed:
        print("no solution:", *failed, file=sys.stderr)
    return bool(failed)


if __name__ == "__main__":
    raise SystemExit(main())
