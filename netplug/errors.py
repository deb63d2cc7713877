"""Every error netplug raises on purpose.

Each says what failed, why, and what to do next; each class maps to one CNI
error code (CNI spec 1.1.0, "Error") and one exit status of the command line.

    NetplugError                    999   1
    |- RequestError                   4   2   a CNI_* variable or argument is missing or wrong
    |- InputError                     5   2   stdin, stdout or a file cannot be read or written
    |- DecodeError                    6   2   text that is no JSON, or no version
    |- VersionError                   1   2   a CNI version we do not speak
    |- ConfigError                    7   2   a key of the configuration is wrong
    |  `- UnsupportedError            2   2   a known key whose value this host cannot serve
    |- SandboxError                   8   2   the network namespace is the wrong one
    |- PermissionRefused            100   3   root (or a namespace of one's own) is needed
    |- NotFound                     101   4   no such network, attachment, container
    |- Conflict                     102   5   a name, address, port or subnet is taken
    |- Exhausted                    103   5   no free address in a range set
    |- CheckFailed                  104   6   the kernel differs from the plan
    |- KernelRefused                105   1   a system call or netlink request failed
    |- DelegateError                106   1   a foreign plugin failed (its own code is kept)
    |- Busy                          11   7   another process works on this; try again
    |- Unavailable                   50   8   ADD cannot be served now (STATUS)
    |  `- Unreachable                 50   8   the cluster store does not answer
    `- Impaired                      51   8   and running containers suffer too (STATUS)
       `- Lost                        51   8   this node's subnet is another node's now

CNI reserves codes below 100; 100 and above are a plugin's own.
"""

from __future__ import annotations

from typing import ClassVar


class NetplugError(Exception):
    """An error with a reason and a remedy.

    `what` failed; `why` (the rule or the kernel's answer); `hint`, the next step.
    """

    code: ClassVar[int] = 999
    exit_status: ClassVar[int] = 1

    def __init__(self, what: str, why: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.why = why
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" if self.why else self.what

    @property
    def cni_code(self) -> int:
        return self.code


class RequestError(NetplugError):
    code = 4
    exit_status = 2


class InputError(NetplugError):
    code = 5
    exit_status = 2


class DecodeError(NetplugError):
    code = 6
    exit_status = 2


class VersionError(NetplugError):
    code = 1
    exit_status = 2


class ConfigError(NetplugError):
    code = 7
    exit_status = 2


class UnsupportedError(ConfigError):
    code = 2


class SandboxError(NetplugError):
    code = 8
    exit_status = 2


class PermissionRefused(NetplugError):
    code = 100
    exit_status = 3


class NotFound(NetplugError):
    code = 101
    exit_status = 4


class Conflict(NetplugError):
    code = 102
    exit_status = 5


class Exhausted(NetplugError):
    code = 103
    exit_status = 5


class CheckFailed(NetplugError):
    code = 104
    exit_status = 6


class KernelRefused(NetplugError):
    """`errno` is the kernel's number, 0 where there is none."""

    code = 105

    def __init__(self, what: str, why: str = "", hint: str = "", *, errno: int = 0) -> None:
        super().__init__(what, why, hint)
        self.errno = errno


class DelegateError(NetplugError):
    """A foreign plugin's failure; `delegate_code` is the code that it gave.

    `started` false: it could not be executed, and so has done nothing.
    """

    code = 106

    def __init__(
        self,
        what: str,
        why: str = "",
        hint: str = "",
        *,
        delegate_code: int | None = None,
        started: bool = True,
    ) -> None:
        super().__init__(what, why, hint)
        self.delegate_code = delegate_code
        self.started = started

    @property
    def cni_code(self) -> int:
        return self.code if self.delegate_code is None else self.delegate_code


class Busy(NetplugError):
    code = 11
    exit_status = 7


class Unavailable(NetplugError):
    code = 50
    exit_status = 8


class Unreachable(Unavailable):
    pass


class Impaired(NetplugError):
    code = 51
    exit_status = 8


class Lost(Impaired):
    pass


def collect(what: str, errors: list[NetplugError]) -> None:
    """Raises the one error of a teardown, or one error that lists several; nothing for none."""
    if not errors:
        return
    if len(errors) == 1:
        raise errors[0]
    raise NetplugError(
        what,
        "; ".join(str(error) for error in errors),
        next((e.hint for e in errors if e.hint), ""),
    )
