"""The primitives of which labs are checked. Each answers: expected, found, what it means."""

from netplug.labs.checks.addresses import AddrCheck, RouteCheck, RuleCheck, SysctlCheck
from netplug.labs.checks.asking import AskCheck
from netplug.labs.checks.base import Check
from netplug.labs.checks.escape import PythonCheck
from netplug.labs.checks.files import FileCheck
from netplug.labs.checks.links import FdbCheck, LinkCheck, NeighCheck, PortCheck
from netplug.labs.checks.names import DnsCheck
from netplug.labs.checks.plans import PlanCheck
from netplug.labs.checks.rules import RulesetCheck
from netplug.labs.checks.traffic import (
    CounterCheck,
    FilterCheck,
    MtuCheck,
    NatCheck,
    NoReachCheck,
    ReachCheck,
    SeenCheck,
)

CHECKS: dict[str, type[Check]] = {
    kind.word: kind
    for kind in (
        LinkCheck,
        PortCheck,
        AddrCheck,
        RouteCheck,
        RuleCheck,
        NeighCheck,
        FdbCheck,
        SysctlCheck,
        NatCheck,
        FilterCheck,
        DnsCheck,
        ReachCheck,
        NoReachCheck,
        MtuCheck,
        SeenCheck,
        CounterCheck,
        PlanCheck,
        FileCheck,
        RulesetCheck,
        AskCheck,
        PythonCheck,
    )
}
