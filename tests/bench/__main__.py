"""Run every benchmark, or those named on the command line: ``python -m tests.bench [NAME...]``."""

import importlib
import pkgutil
import sys

import tests.bench


def main(names: list[str]) -> int:
    known = sorted(m.name for m in pkgutil.iter_modules(tests.bench.__path__) if not m.name.startswith("_"))
    unknown = [n for n in names if n not in known]
    if unknown:
        sys.stderr.write(f"no benchmark {', '.join(unknown)}: there are {', '.join(known)}\n")
        return 2
    for name in names or known:
        print(f"== {name}", flush=True)
        importlib.import_module(f"tests.bench.{name}").main()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
