"""singer-sdk's standard target tests on target-avro, read back with Apache's own Python library."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from avro_rows import read_avro
from standard import standard_tests

from melisma_target_avro.target import TargetAvro

TestStandard, TestReadBack, TestEachState = standard_tests(TargetAvro, ".avro", read_avro, compression="deflate")
