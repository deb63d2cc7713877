"""Names and numbers of the protocol: a module of constants, for a client that must start fast."""

SOCKET = "/run/netplug/agent.sock"
MAGIC = b"NPA1"
PAYLOAD_LIMIT = 16 << 20  # bytes; also of stdout and stderr of an answer together
ANSWER_MS = 2_000  # from the end of stdin to the agent's first byte
WORK_MS = 120_000  # from 'G' to the end of the answer; above every lock's patience

HAS_SANDBOX = 1  # flag: the fourth descriptor is CNI_NETNS
SANDBOX_GONE = 2  # flag: CNI_NETNS names nothing
COMMAND = 4  # flag: not a plugin call but a command line

# The agent takes command lines that begin with one of these: what reads or changes attachments.
SERVED = ("connect", "disconnect", "ps", "check", "repair", "gc", "status", "ipam")

# Variables of a command line: what its options may also be given by, what its output looks
# like, and three that the client makes.
SETTINGS = ("NETCONFPATH", "CNI_PATH", "NETPLUG_STATE", "NETPLUG_FIREWALL")
TERMINAL = ("TERM", "COLORTERM", "NO_COLOR", "FORCE_COLOR", "COLUMNS")
FOLDER, TERMINALS, VERSION = "PWD", "TERMINALS", "NETPLUG_VERSION"
COMMAND_NAMES = (*SETTINGS, *TERMINAL, FOLDER, TERMINALS, VERSION)
