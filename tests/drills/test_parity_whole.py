"""Every golden file, whole; the suite compares a part of the three that take longest."""

import check_parity
import pytest


@pytest.mark.drill
def test_every_golden_file_agrees(parity, capsys):
    assert check_parity.main([str(parity)]) == 0, capsys.readouterr().out
