"""docs/reliability.md says of each case what the table says of it, and each case has its test."""

from __future__ import annotations

import re
from pathlib import Path

from tests.faults.cases import CASES, GROUPS
from tests.faults.report import PATH, SOAK, row_head

HERE = Path(__file__).parent


def test_each_case_has_one_test():
    marked = [
        key
        for module in HERE.glob("test_*.py")
        for key in re.findall(r'mark\.case\("([a-z0-9-]+)"', module.read_text())
    ]
    assert sorted(marked) == sorted(CASES)


def test_the_report_has_each_case_of_the_table_and_no_other():
    table = PATH.read_text().partition(SOAK)[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and not line.startswith(("| fault", "| ---"))]
    cases = [case for group in GROUPS.values() for case in group]
    assert len(rows) == len(cases)
    for row, case in zip(rows, cases, strict=True):
        assert row.startswith(row_head(case))
