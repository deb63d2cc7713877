"""The catalogue of faults: symptom, evidence, cause, remedy; each with its inverse."""

from netplug.labs.faults.base import FaultKind
from netplug.labs.faults.layer2 import LAYER2
from netplug.labs.faults.layer3 import LAYER3
from netplug.labs.faults.overlays import OVERLAYS
from netplug.labs.faults.services import SERVICES
from netplug.labs.faults.translation import TRANSLATION

FAULTS: dict[str, FaultKind] = {
    kind.name: kind for kind in (*LAYER2, *LAYER3, *TRANSLATION, *OVERLAYS, *SERVICES)
}
