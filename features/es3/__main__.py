"""The sample job as a program for spark-submit: `spark-submit … features/es3/__main__.py --logs … --out …`.

spark-submit, or the operator that calls it, decides the master and the sizes; `uniscale samples` is the same on a
machine that starts Spark itself.
"""

import argparse
from pathlib import Path

from features.es3.build import build_samples
from uniscale.config import load_config


def main() -> None:
    """Build the samples of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, meaning in (("logs", "clean LOGS folder"), ("features", "FEATURES folder"), ("out", "SAMPLES folder")):
        parser.add_argument(f"--{name}", type=Path, required=True, help=f"{meaning}, on storage that all workers see")
    parser.add_argument("--previous", type=Path, help="SAMPLES folder whose unchanged days are taken over")
    parser.add_argument("--config", type=Path, help="params.yaml to read instead of the packaged one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override of params.yaml")
    options = parser.parse_args()
    config = load_config(options.config, ['spark.master=""', *options.set])
    build_samples(config, options.logs, options.features, options.out, previous=options.previous)


if __name__ == "__main__":
    main()
