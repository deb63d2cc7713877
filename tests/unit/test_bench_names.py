"""What dnsperf prints, as the bench reads it."""

from __future__ import annotations

import pytest

from bench.name_servers import parse_load

TEXT = """> NOERROR c1.dns.podman A 0.000121
> NOERROR c2.dns.podman A 0.000080
Statistics:

  Queries sent:         3
  Queries completed:    2 (66.67%)
  Queries lost:         1 (33.33%)

  Response codes:       NOERROR 2 (100.00%)
  Average packet size:  request 31, response 47
  Run time (s):         0.5
  Queries per second:   4.000000
"""


def test_a_run() -> None:
    load = parse_load(TEXT)
    assert (load.sent, load.lost, load.rate) == (3, 1, 4.0)
    assert load.latencies == [0.000080, 0.000121]


def test_a_wrong_answer_is_no_result() -> None:
    with pytest.raises(ValueError, match="NXDOMAIN"):
        parse_load(TEXT.replace("NOERROR 2 (100.00%)", "NOERROR 1 (50%), NXDOMAIN 1 (50%)"))
    with pytest.raises(ValueError, match="no such host"):
        parse_load("no such host")
