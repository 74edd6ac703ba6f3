#!/usr/bin/python3 -I
"""edgevoice with the service's models. Its packages are its own: other programs of Python do not see them."""

import os
import sys

if __name__ == "__main__":  # processes that it starts read this file, too
    os.environ.setdefault("EDGEVOICE_MODELS", "/var/lib/edgevoice/models")
    # The second is for what the package does not bring: pip install --target
    sys.path[:0] = ["/usr/lib/edgevoice", "/usr/local/lib/edgevoice"]
    from edgevoice.cli import main

    sys.exit(main())
